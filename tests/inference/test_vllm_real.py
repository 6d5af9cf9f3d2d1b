"""The real vLLM on a real model, as a child process.

One server for all of these tests, as it takes the better part of a minute to load; the last test ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import psutil
import pytest

from emulator.inference.model_server import ModelRequest
from emulator.inference.remote import RemoteServer
from emulator.inference.vllm import VLLMServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


class RealVLLM(NamedTuple):
    runner: asyncio.Runner
    server: VLLMServer
    processes: set[psutil.Process]


@pytest.fixture(scope="module")
def real_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVLLM]:
    try:
        python = os.environ["TEST_VLLM_PYTHON"]
        model = os.environ["TEST_VLLM_MODEL"]
    except KeyError as error:
        pytest.fail(f"{error} is not set: it says what `make test-vllm` built; the quick run is `pytest -m 'not vllm'`")
    server = VLLMServer(
        model=model,
        arguments=["--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager"],
        python=python,
        log_file=tmp_path_factory.mktemp("vllm") / "vllm.log",
        connect=RemoteServer,
    )

    async def start() -> None:
        await server.start()
        async with asyncio.timeout(300):
            while not (health := await server.health()).ready:
                assert "restarted" not in health.detail, health.detail
                await asyncio.sleep(0.25)

    with pytest.MonkeyPatch.context() as environment, asyncio.Runner() as runner:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        before = set(psutil.Process().children(recursive=True))
        runner.run(start())
        yield RealVLLM(runner, server, set(psutil.Process().children(recursive=True)) - before)
        runner.run(server.aclose())


async def ask(server: VLLMServer, body: bytes) -> tuple[str, list[bytes]]:
    answer = await server.send(ModelRequest("/v1/chat/completions", body))
    return answer.headers["content-type"], [piece async for piece in answer]


def question(**more: Any) -> bytes:
    messages = [{"role": "user", "content": "What is 2+2?"}]
    return json.dumps({"model": "default", "messages": messages, "max_tokens": 24, "temperature": 0} | more).encode()


def test_the_real_vllm_answers_with_tokens_and_their_log_probabilities(
    real_vllm: RealVLLM,
) -> None:
    runner, server, _ = real_vllm
    content_type, pieces = runner.run(ask(server, question(logprobs=True, return_token_ids=True)))
    assert content_type == "application/json"
    document = json.loads(b"".join(pieces))
    (choice,) = document["choices"]
    assert "4" in choice["message"]["content"]
    assert len(choice["token_ids"]) == len(choice["logprobs"]["content"]) == document["usage"]["completion_tokens"]
    assert len(document["prompt_token_ids"]) == document["usage"]["prompt_tokens"]


def test_the_real_vllm_streams_its_answer_piece_by_piece(real_vllm: RealVLLM) -> None:
    runner, server, _ = real_vllm
    content_type, pieces = runner.run(ask(server, question(stream=True)))
    assert content_type.startswith("text/event-stream")
    assert len(pieces) > 3
    *events, end = b"".join(pieces).removesuffix(b"\n\n").split(b"\n\n")
    assert end == b"data: [DONE]"
    deltas = [json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"] for event in events]
    assert "4" in "".join(delta.get("content") or "" for delta in deltas)


def test_closing_leaves_no_process_of_the_real_vllm(real_vllm: RealVLLM) -> None:
    runner, server, processes = real_vllm
    names = {process.name() for process in processes}
    assert any("EngineCore" in name for name in names), names
    runner.run(server.aclose())
    _gone, left = psutil.wait_procs(processes, timeout=10)  # an orphan's zombie is for init to reap
    assert {process.status() for process in left} <= {psutil.STATUS_ZOMBIE}
