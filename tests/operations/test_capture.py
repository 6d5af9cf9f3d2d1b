"""A turn ends in the store and gives its place back, whatever its model server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emulator.address import Address
from emulator.inference.model_server import Health, ModelAnswer, ModelRequest
from emulator.inference.scripted import ScriptedServer
from emulator.metrics import Metrics
from emulator.operations.capture import take_turn
from emulator.operations.runtime import Runtime
from emulator.store import Store
from emulator.trajectory import TurnStatus
from tests.stored import stored_turns

PATH = "/v1/chat/completions"


class Faulty:
    """A model server, and its answer, with a bug: it breaks in a way that no interface allows."""

    def __init__(self, *, in_send: bool) -> None:
        self.in_send = in_send
        self.status = 200
        self.headers = {"content-type": "text/event-stream"}

    async def start(self) -> None:
        pass

    async def send(self, request: ModelRequest) -> ModelAnswer:
        if self.in_send:
            raise RuntimeError("a bug")
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: {}\n\n"
        raise RuntimeError("a bug")

    def close(self) -> None:
        pass

    async def health(self) -> Health:
        return Health(True, "ready")

    def reset(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Patient:
    """A client that takes whatever comes."""

    def write(self, piece: bytes) -> bool:
        assert piece == b"data: {}\n\n"
        return True

    async def drained(self) -> None:
        pass


@pytest.mark.parametrize("where", ["send", "read", "relay"])
def test_a_bug_of_a_model_server_fails_the_turn_and_gives_its_place_back(
    where: str, database: Path, job_arn: str
) -> None:
    async def body() -> None:
        store = Store(database, durability="normal", create_trajectories=True, any_job=True)
        await store.start()
        model = Faulty(in_send=where == "send")
        runtime = Runtime(store, model, Metrics(), max_answer_bytes=1000, max_in_flight=1)
        try:
            with pytest.raises(RuntimeError):
                await turn(runtime)
        finally:
            await store.aclose()
        assert runtime.metrics.in_flight == 0
        assert runtime.metrics.turns == {TurnStatus.FAILED: 1}

    async def turn(runtime: Runtime) -> None:
        capture = await take_turn(runtime, job_arn=job_arn, trajectory_id="t", path=PATH, body=b"{}")
        await (capture.read() if where == "read" else capture.relay(Patient()))

    asyncio.run(body())
    (stored,) = stored_turns(database, "t")
    assert (stored.status, stored.error) == (TurnStatus.FAILED, "RuntimeError: a bug")
    assert stored.response == (b"" if where == "send" else b"data: {}\n\n")


class Listening(ScriptedServer):
    """The scripted model, which remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[ModelRequest] = []

    async def send(self, request: ModelRequest) -> ModelAnswer:
        self.asked.append(request)
        return await super().send(request)


def test_an_embedded_model_server_is_told_whom_it_answers(any_database: Address, job_arn: str) -> None:
    async def body() -> list[ModelRequest]:
        model = Listening()
        store = Store(any_database, durability="normal", create_trajectories=True, any_job=True)
        await store.start()
        try:
            await store.register_trajectory(job_arn, "dispatched", group="g", instance='{"prompt":"2 + 2?"}')
            runtime = Runtime(store, model, Metrics(), max_answer_bytes=10_000, max_in_flight=1)
            question = b'{"messages": [{"role": "user", "content": "Hello"}]}'
            for trajectory_id in ("dispatched", "dispatched", "alone"):
                capture = await take_turn(
                    runtime, job_arn=job_arn, trajectory_id=trajectory_id, path=PATH, body=question
                )
                await capture.read()
        finally:
            await store.aclose()
        return model.asked

    asked = asyncio.run(body())
    assert {each.job_arn for each in asked} == {job_arn}
    assert [(each.trajectory_id, each.turn, each.instance) for each in asked] == [
        ("dispatched", 0, '{"prompt":"2 + 2?"}'),
        ("dispatched", 1, '{"prompt":"2 + 2?"}'),
        ("alone", 0, None),
    ]
