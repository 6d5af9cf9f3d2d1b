"""Examples against the real vLLM, 32 rows four times each: recounted, exported, and replayed without vLLM."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from emulator.cli import main
from emulator.settings import Settings
from emulator.testing import running_server
from emulator.trajectory import Status
from tests.clients.environments import program
from tests.contract.conftest import vllm_settings, wait_until_ready
from tests.examples.agents import ROOT, SERVERS, example_variables
from tests.examples.driving import Run, drive
from tests.examples.recomputing import recomputed

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

ROWS, GROUP_SIZE = 32, 4
NAMES = ["boto3_streaming", "openai_tools", "strands_handler", "langchain_agent"]

#: The lower the temperature, the more often this small model writes a call of the tool as it shall be.
#: Without retries: whose attempts failed is chance, and a cassette holds so many attempts and no more.
OPTIONS = (
    "--limit", str(ROWS), "--group-size", str(GROUP_SIZE), "--temperature", "0.5", "--max-tokens", "64",
    "--rate", "none", "--concurrency", "16", "--retries", "0",
)  # fmt: skip

#: Of which the token ids are exported, too: vLLM has to tokenize them while it is there.
TOKENS_OF = "3"


@dataclass(frozen=True)
class Recording:
    """What was done with vLLM, which has ended."""

    runs: Mapping[str, Run]
    folder: Path

    @property
    def cassette(self) -> Path:
        return self.folder / "cassette.yaml"

    def tokens(self, name: str) -> Path:
        """The token ids of a run's group."""
        return self.folder / f"{name}.parquet"

    def export(self, name: str, path: Path, *options: str) -> Path:
        """What an example did, exported."""
        database, job = str(self.folder / "trajectories.db"), self.runs[name].report["run"]["job_arn"]
        assert main(["export", "--database", database, "--job", job, "--output", str(path), *options]) == 0
        return path


@pytest.fixture(scope="module")
def recording(example: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A run of each example."""
    folder = tmp_path_factory.mktemp("examples-vllm")
    database, log = folder / "trajectories.db", folder / "vllm.log"
    recording = Recording({}, folder)
    choice: dict[str, Any] = {**vllm_settings(), "vllm_log": str(log), "database": str(database)}
    choice |= {"record": choice["model"], "model": f"cassette:{recording.cassette}"}
    runs = {}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with (
            running_server(Settings(port=0, **choice)) as server,
            httpx2.Client(base_url=f"{server.url}/_emulator", timeout=60) as management,
        ):
            wait_until_ready(management, log)
            for name in NAMES:
                runs[name] = drive(name, url_of(name, example), database, *OPTIONS, "--endpoint", server.url)
                asked = {"format": "tokens", "file": "parquet", "job": runs[name].report["run"]["job_arn"]}
                answer = management.get("/export", params={**asked, "group": TOKENS_OF})
                recording.tokens(name).write_bytes(answer.raise_for_status().content)
    return Recording(runs, folder)


def url_of(name: str, example: Callable[[str], str]) -> str | None:
    """Where an example listens, if it does."""
    return example(name) if name in SERVERS else None


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


def test_rewards_differ(name: str, recording: Recording) -> None:
    """Some rollouts get their reward and others do not, within groups too: there is something to learn from them."""
    run = recording.runs[name]
    assert (run.report["counts"]["planned"], run.report["counts"]["not_run"]) == (ROWS * GROUP_SIZE, 0)
    assert {trajectory.status for trajectory, _ in run.stored.values()} == {Status.REWARD_RECEIVED}
    metrics = run.report["metrics"]
    assert 0 < metrics["reward/mean"] < 1, run.printed
    assert metrics["reward/std_within_groups"] > 0, run.printed
    assert metrics["reward/pass_at_1"] < metrics["reward/pass_at_4"], run.printed


def test_the_report_says_what_is_stored(name: str, recording: Recording) -> None:
    run = recording.runs[name]
    assert run.report["metrics"] == pytest.approx(recomputed(run, rows=ROWS, group_size=GROUP_SIZE), abs=1e-12)


def test_the_cassette_replays_the_run_byte_for_byte_with_no_model_server(
    name: str, example: Callable[[str], str], recording: Recording, tmp_path: Path
) -> None:
    once = recording.runs[name]
    again = drive(
        name, url_of(name, example), tmp_path / "again.db", *OPTIONS, "--database", str(tmp_path / "again.db"),
        "--model", f"cassette:{recording.cassette}", "--cassette-used-up", "refuse",
    )  # fmt: skip
    assert conversations(again) == conversations(once)
    assert again.report["metrics"] == pytest.approx(once.report["metrics"], abs=1e-12)


def conversations(run: Run) -> Counter[tuple[tuple[bytes, bytes, str | None], ...]]:
    """Each trajectory's bytes, and how many have the same: rollouts have other names in each run."""
    return Counter(
        tuple((turn.request, turn.response, turn.content_type) for turn in turns) for _, turns in run.stored.values()
    )


def test_exports_of_the_run_are_read_back_by_datasets_and_pandas(
    name: str, recording: Recording, tmp_path: Path
) -> None:
    run = recording.runs[name]
    files = [
        recording.export(name, tmp_path / "native.parquet"),
        recording.export(name, tmp_path / "openai.jsonl", "--format", "openai", "--eligible"),
        recording.export(name, tmp_path / "grpo.parquet", "--format", "trl", "--for", "grpo", "--eligible"),
        recording.tokens(name),
    ]
    done = subprocess.run(
        [program("datasets", "python"), "-m", "tests.export.read_back", tmp_path / "read.json", *files],
        check=False, capture_output=True, text=True, cwd=ROOT, env=offline(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    native, openai, grpo, tokens = (json.loads((tmp_path / "read.json").read_text())[file.name] for file in files)
    assert {row["trajectory_id"] for row in native["rows"]} == run.stored.keys()
    rewards = {
        rollout["trajectory_id"]: rollout["reward"]
        for rollout in run.report["rollouts"]
        if rollout["failure"] is None
    }  # fmt: skip
    assert {row["trajectory_id"]: row["reward"] for row in openai["rows"]} == rewards
    assert sorted(openai["rewards"]) == sorted(rewards.values())  # as pandas read them
    of_groups: dict[str, list[float]] = {}
    for trajectory_id, reward in rewards.items():
        of_groups.setdefault(run.stored[trajectory_id][0].group or "", []).append(reward)
    assert {row["group"]: sorted(row["rewards"]) for row in grpo["rows"]} == {
        group: sorted(values) for group, values in of_groups.items()
    }
    read = {rollout["trajectory_id"]: rollout["turns"] for rollout in run.report["rollouts"]}
    assert tokens["rows"]
    for row in tokens["rows"]:
        assert len(row["input_ids"]) == len(row["loss_mask"])
        assert row["input_ids"][: row["turns"][0]["start"]]
        for turn in row["turns"]:
            assert turn["start"] == read[row["trajectory_id"]][turn["number"]]["prompt_tokens"]


@pytest.mark.parametrize("name", ["boto3_streaming", "openai_tools"])
def test_trl_trains_a_step_on_each_export_of_the_run(name: str, recording: Recording, tmp_path: Path) -> None:
    for purpose, file in (("sft", "sft.jsonl"), ("grpo", "grpo.jsonl"), ("dpo", "dpo.parquet")):
        recording.export(name, tmp_path / file, "--format", "trl", "--for", purpose, "--eligible")
    (tmp_path / "tokens.parquet").write_bytes(recording.tokens(name).read_bytes())
    done = subprocess.run(
        [os.environ["TEST_VLLM_PYTHON"], "-m", "tests.export.train", tmp_path, os.environ["TEST_VLLM_MODEL"]],
        check=False, capture_output=True, text=True, cwd=ROOT, env=offline(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["sft"]) == rewarded_turns(recording.runs[name])
    assert all(any(token for token in sequence) for sequence in report["tokens"])
    assert report["dpo"]["chosen_ids"] != report["dpo"]["rejected_ids"]
    assert all(row["answer"] for row in report["grpo"])


def offline(folder: Path) -> dict[str, str]:
    """The variables of a program that looks nothing up, and keeps what it caches in a folder of the test."""
    switches = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
    return example_variables() | switches | {"HF_HOME": str(folder / "home")}


def rewarded_turns(run: Run) -> int:
    """How many turns the rollouts have that got their reward."""
    return sum(len(rollout["turns"]) for rollout in run.report["rollouts"] if rollout["failure"] is None)
