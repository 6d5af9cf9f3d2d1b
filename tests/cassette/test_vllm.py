"""What the real vLLM said comes back byte for byte when it is gone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from emulator.inference.cassette.file import read_cassette
from emulator.server import Server
from tests.cassettes import recording, replaying
from tests.conftest import JOB_ARN
from tests.contract.conftest import vllm_settings, wait_until_ready
from tests.raw_client import CHAT, STREAM, RawClient, Reply

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

GROUP = 4


def body(messages: list[dict[str, Any]], **more: Any) -> bytes:
    return json.dumps({"model": "default", "messages": messages, "max_tokens": 16, "temperature": 1} | more).encode()


def rollout(server: Server, trajectory: str) -> list[tuple[int, str, bytes]]:
    """Two turns and their streams; all that came, as it came."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Name an animal."}]
    came: list[Reply] = []
    with closing(RawClient(server.url, JOB_ARN)) as client:
        for _ in range(2):
            whole = client.sample(trajectory, body(messages, logprobs=True, return_token_ids=True))
            streamed = client.sample(trajectory, body(messages, stream=True), STREAM)
            came += [whole, streamed]
            assert (whole.status, streamed.status) == (200, 200), whole.body + streamed.body
            messages += [json.loads(whole.body)["choices"][0]["message"], {"role": "user", "content": "Another."}]
        came.append(client.sample(trajectory, body(messages, max_tokens=100_000), CHAT))  # more than fits
        assert came[-1].status == 400
    return [(each.status, each.headers["content-type"], each.body) for each in came]


def models(server: Server) -> bytes:
    with closing(RawClient(server.url, JOB_ARN)) as client:
        return client.call("/v1/models", method="GET").body


def test_a_group_that_the_real_vllm_answered_is_replayed_byte_for_byte_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    chosen = vllm_settings()
    log = tmp_path / "vllm.log"
    cassette = tmp_path / "vllm.yaml"
    names = [f"t-{number}" for number in range(GROUP)]
    with (
        recording(cassette, chosen["model"], vllm_python=chosen["vllm_python"], vllm_log=str(log)) as server,
        httpx2.Client(base_url=f"{server.url}/_emulator") as management,
        ThreadPoolExecutor(GROUP) as pool,
    ):
        wait_until_ready(management, log)
        listed = models(server)
        recorded = list(pool.map(lambda name: rollout(server, name), names))
    assert len({came[0][2] for came in recorded}) == GROUP
    with replaying(cassette, cassette_used_up="refuse") as server:
        assert [rollout(server, name) for name in reversed(names)] == recorded[::-1]
    with (
        replaying(cassette, cassette_used_up="refuse", cassette_pauses="recorded") as server,
        ThreadPoolExecutor(GROUP) as pool,
    ):
        again = list(pool.map(lambda name: rollout(server, f"another {name}"), names))
        assert models(server) == listed
    assert sorted(again) == sorted(recorded)
    streams = [each.recorded.answer for each in read_cassette(cassette).entries if each.recorded.answer.is_stream]
    assert len(streams) == 2 * GROUP
    assert all(len(stream.pieces) > 3 and any(piece.after for piece in stream.pieces) for stream in streams)
