"""Rollouts with the real vLLM, exported: its own tokenizer agrees, and TRL's trainers take a step on them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from emulator.cli import main
from emulator.inference.remote import RemoteServer
from emulator.inference.vllm import VLLMServer, parse_vllm
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import ask
from tests.conftest import JOB_ARN
from tests.contract.conftest import PATIENCE, vllm_settings
from tests.export.rollouts import begin, end
from tests.export.test_readers import ROOT, offline

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

END = "<|im_end|>"

QUESTIONS = {"group-1": "What is 2+2?", "group-2": "Name a colour."}


@dataclass(frozen=True)
class Rollouts:
    """What was captured, and who answered."""

    database: Path
    vllm: str
    folder: Path

    def rows(self, name: str, *options: str) -> list[dict[str, Any]]:
        """An export as JSON Lines."""
        path = self.write(name, *options)
        return [json.loads(line) for line in path.read_text().splitlines()]

    def write(self, name: str, *options: str) -> Path:
        """An export."""
        path = self.folder / name
        assert main(["export", "--database", str(self.database), "--output", str(path), *options]) == 0
        return path

    def tokenize(self, **asked: object) -> list[int]:
        """vLLM's own tokens."""
        answer = httpx2.post(f"{self.vllm}/tokenize", json={"model": "default", **asked})
        assert answer.status_code == 200, answer.text
        ids: list[int] = answer.json()["tokens"]
        return ids

    def detokenize(self, ids: list[int]) -> str:
        """vLLM's own text of tokens."""
        answer = httpx2.post(f"{self.vllm}/detokenize", json={"model": "default", "tokens": ids})
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["prompt"]
        return text


def converse(url: str, trajectory_id: str, question: str, **options: object) -> None:
    """Two turns."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    messages.append(ask(url, JOB_ARN, trajectory_id, messages, max_tokens=16, **options))
    messages.append({"role": "user", "content": "And another one?"})
    ask(url, JOB_ARN, trajectory_id, messages, max_tokens=16, **options)


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollouts]:
    """Two groups of two rollouts with token ids, each rewarded differently; and one without ids."""
    folder = tmp_path_factory.mktemp("trl")
    chosen = vllm_settings()
    model, arguments = parse_vllm(chosen["model"].removeprefix("vllm:"))
    urls: list[str] = []

    def connect(url: str) -> RemoteServer:
        urls.append(url)
        return RemoteServer(url)

    vllm = VLLMServer(
        model=model,
        arguments=arguments,
        python=chosen["vllm_python"],
        log_file=folder / "vllm.log",
        connect=connect,
    )

    async def start() -> None:
        await vllm.start()
        async with asyncio.timeout(PATIENCE):
            while not (health := await vllm.health()).ready:
                assert "restarted" not in health.detail, health.detail
                await asyncio.sleep(0.25)

    database = folder / "trajectories.db"
    with pytest.MonkeyPatch.context() as environment, asyncio.Runner() as runner:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        try:
            runner.run(start())
            with running_server(Settings(port=0, database=str(database), model=urls[0])) as server:
                for group, question in QUESTIONS.items():
                    for number in range(2):
                        name = f"{group}-{number}"
                        begin(server.url, name, group, {"prompt": question})
                        options = {"seed": number, "temperature": 1.0, "stream": False}
                        converse(server.url, name, question, return_token_ids=True, logprobs=True, **options)
                        end(server.url, name, float(number))
                converse(server.url, "without-ids", "What is 2+2?", temperature=0)
                end(server.url, "without-ids", 1.0)
                yield Rollouts(database, urls[0], folder)
        finally:
            runner.run(vllm.aclose())


def test_exported_tokens_are_those_that_vllm_tokenizes_and_detokenizes(rollouts: Rollouts) -> None:
    rows = rollouts.rows("tokens.jsonl", "--format", "tokens", "--group", "group-1")
    natives = {row["trajectory_id"]: row for row in rollouts.rows("native.jsonl", "--group", "group-1")}
    seen = set()
    for row in rows:
        turns = {turn["number"]: turn for turn in natives[row["trajectory_id"]]["turns"]}
        for span in row["turns"]:
            turn = turns[span["number"]]
            (choice,) = turn["choices"]
            prompt, said = row["input_ids"][: span["start"]], row["input_ids"][span["start"] : span["end"]]
            assert prompt == choice["prompt_token_ids"]
            if span["number"] == 0:  # later prompts hold what was sampled, which may be split otherwise
                assert prompt == rollouts.tokenize(messages=turn["request"]["messages"])
            assert rollouts.detokenize(said).removesuffix(END) == choice["message"]["content"]
            assert row["loss_mask"][span["start"] : span["end"]] == [1] * turn["usage"]["completion_tokens"]
            logprobs = row["logprobs"][span["start"] : span["end"]]
            assert all(value is not None and value <= 0 for value in logprobs)
            assert span["advantage"] == (1 if row["reward"] else -1)
            seen.add((row["trajectory_id"], span["number"]))
    assert len(seen) == 4


def test_tokens_that_the_answer_lacks_are_what_vllm_makes_of_its_text(rollouts: Rollouts) -> None:
    options = ("--format", "tokens", "--trajectory", "without-ids", "--tokenizer", rollouts.vllm)
    rows = rollouts.rows("tokenized.jsonl", *options)
    (native,) = rollouts.rows("native.jsonl", "--trajectory", "without-ids")
    spans = {span["number"]: (row, span) for row in rows for span in row["turns"]}
    for turn in native["turns"]:
        row, span = spans[turn["number"]]
        assert span["source"] == "tokenize"
        assert row["input_ids"][: span["start"]] == rollouts.tokenize(messages=turn["request"]["messages"])
        said = row["input_ids"][span["start"] : span["end"]]
        assert rollouts.detokenize(said) == turn["choices"][0]["message"]["content"]


def test_trl_trains_a_step_on_each_export(rollouts: Rollouts) -> None:
    groups = ("--format", "trl", "--eligible", "--for")
    sft = rollouts.rows("sft.jsonl", *groups, "sft")
    rollouts.write("grpo.jsonl", *groups, "grpo", "--group", "group-1")
    rollouts.write("dpo.parquet", *groups, "dpo")
    rollouts.write("tokens.parquet", "--format", "tokens", "--min-reward", "1", "--group", "group-2")
    tokens = rollouts.rows("tokens.jsonl", "--format", "tokens", "--min-reward", "1", "--group", "group-2")
    done = subprocess.run(
        [os.environ["TEST_VLLM_PYTHON"], "-m", "tests.export.train", rollouts.folder, os.environ["TEST_VLLM_MODEL"]],
        cwd=ROOT, env=offline(rollouts.folder), capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((rollouts.folder / "report.json").read_text())
    completions = [row["completion"][0]["content"] for row in sft]
    assert [text.strip().removesuffix(END) for text in report["sft"]] == [text.strip() for text in completions]
    assert report["tokens"] == [
        [token for token, own in zip(row["input_ids"], row["loss_mask"], strict=True) if own] for row in tokens
    ]
    assert all(question in text for question, text in zip(QUESTIONS.values(), report["dpo"]["prompt_ids"], strict=True))
    for given in report["dpo"]["chosen_ids"] + report["dpo"]["rejected_ids"]:
        assert "And another one?" in given
    assert {"prompt": "What is 2+2?"} in report["grpo"]
