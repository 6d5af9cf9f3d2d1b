"""Two real vLLMs behind a real vllm-router, and the emulator in front.

One rack for all of these tests, as two vLLMs take more than a minute to load on two cores.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from emulator.completion import read_completion
from emulator.inference.remote import RemoteServer
from emulator.inference.vllm import VLLMServer, parse_vllm
from emulator.settings import Settings
from emulator.testing import running_server
from emulator.trajectory import TurnStatus
from tests.conftest import JOB_ARN
from tests.contract.conftest import PATIENCE, vllm_settings
from tests.raw_client import SAMPLE, STREAM, RawClient, check_error
from tests.stored import eventually, stored_turns
from tests.vllm_router import vllm_router

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


COMPLETED = re.compile(r"^vllm:request_success_total\{.*\} (\S+)$", re.MULTILINE)


class Rack(NamedTuple):
    url: str  #: of the emulator
    database: Path
    model_servers: list[str]

    def answered(self) -> list[int]:
        """How many requests each vLLM says that it has completed."""
        texts = [httpx2.get(f"{url}/metrics").text for url in self.model_servers]
        return [sum(int(float(count)) for count in COMPLETED.findall(text)) for text in texts]


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    folder = tmp_path_factory.mktemp("rack")
    chosen = vllm_settings()
    model, arguments = parse_vllm(chosen["model"].removeprefix("vllm:"))
    urls: list[str] = []

    def connect(url: str) -> RemoteServer:
        urls.append(url)
        return RemoteServer(url)

    servers = [
        VLLMServer(
            model=model,
            arguments=arguments,
            python=chosen["vllm_python"],
            log_file=folder / f"vllm-{number}.log",
            connect=connect,
        )
        for number in range(2)
    ]

    async def start() -> None:
        async with asyncio.timeout(PATIENCE):
            for server in servers:
                await server.start()
            for server in servers:
                while not (health := await server.health()).ready:
                    assert "restarted" not in health.detail, health.detail
                    await asyncio.sleep(0.25)

    async def end() -> None:
        await asyncio.gather(*(server.aclose() for server in servers))

    with pytest.MonkeyPatch.context() as environment, asyncio.Runner() as runner:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        try:
            runner.run(start())
            with vllm_router(urls, folder / "router.log", "--policy", "round_robin") as router:
                database = folder / "trajectories.db"
                with running_server(Settings(port=0, database=str(database), model=router)) as server:
                    yield Rack(server.url, database, urls)
        finally:
            runner.run(end())


def question(**more: Any) -> bytes:
    messages = [{"role": "user", "content": "What is 2+2?"}]
    return json.dumps({"model": "default", "messages": messages, "max_tokens": 16, "temperature": 0} | more).encode()


def test_token_ids_and_log_probabilities_come_through_the_router_whole_and_streamed(rack: Rack) -> None:
    asked = {"logprobs": True, "top_logprobs": 0, "return_token_ids": True}
    with RawClient(rack.url, JOB_ARN) as client:
        for path, stream in ((SAMPLE, False), (STREAM, True)) * 2:  # each of them from both model servers
            reply = client.sample("tokens", question(**asked, stream=stream), path)
            assert reply.status == 200, reply.body
    turns = stored_turns(rack.database, "tokens")
    completions = [read_completion(turn.request, turn.response, turn.content_type) for turn in turns]
    for turn, completion in zip(turns, completions, strict=True):
        assert turn.status is TurnStatus.COMPLETED
        (choice,) = completion.choices
        assert choice.token_ids
        assert choice.logprobs is not None
        assert len(choice.token_ids) == len(choice.logprobs)
        assert all(each.logprob is not None and each.logprob <= 0 for each in choice.logprobs)
        assert "4" in "".join(each.token for each in choice.logprobs)
        assert choice.token_ids == completions[0].choices[0].token_ids
        assert completion.prompt_token_ids
        assert completion.prompt_token_ids == completions[0].prompt_token_ids


def test_rollouts_at_once_are_answered_by_both_model_servers_and_stored(rack: Rack) -> None:
    before = rack.answered()

    def rollout(number: int) -> list[bytes]:
        with RawClient(rack.url, JOB_ARN) as client:
            return [client.sample(f"rollout-{number}", question(user=str(turn))).body for turn in range(3)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(rollout, range(4)))
    eventually(
        lambda: all(after - count >= 6 for after, count in zip(rack.answered(), before, strict=True)),
        "6 answers of each model server",
    )
    for number, responses in enumerate(answers):
        turns = stored_turns(rack.database, f"rollout-{number}")
        assert [turn.response for turn in turns] == responses
        assert [turn.status for turn in turns] == [TurnStatus.COMPLETED] * 3


def test_what_vllm_refuses_comes_through_in_its_own_words(rack: Rack) -> None:
    with RawClient(rack.url, JOB_ARN) as client:
        assert "temperature" in check_error(
            client.sample("refused", question(temperature=-5)), 400, "ValidationException"
        )
        assert "nobody" in check_error(client.sample("refused", question(model="nobody")), 400, "ValidationException")
