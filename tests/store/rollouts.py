"""What tests ask of a store: turns and seals of trajectories, by their names."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from emulator.address import Address
from emulator.store import OpenTrajectory, Store, Turn
from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.stored import PATIENCE

T = TypeVar("T")


@asynccontextmanager
async def store_on(address: Address, patience: float = PATIENCE) -> AsyncIterator[Store]:
    """An open store."""
    store = Store(address, durability="normal", create_trajectories=True, any_job=True, patience=patience)
    await store.start()
    try:
        yield store
    finally:
        await store.aclose()


def request(number: int) -> bytes:
    """What a turn of that number asks."""
    return b"what all of them begin with " * 10 + b"%d" % number


async def end_turn(store: Store, trajectory: OpenTrajectory, number: int, body: bytes | None = None) -> None:
    """Store a completed turn."""
    turn = Turn(
        trajectory=trajectory.id, number=number, status=TurnStatus.COMPLETED.value, path="/", http_status=200,
        content_type=None, error=None, arrived_at=1, first_byte_at=2, ended_at=3,
        request=request(number) if body is None else body, response=b"answer %d" % number,
    )  # fmt: skip
    await store.end_turn(trajectory, turn)


async def take_turn(store: Store, name: str) -> int:
    """Take a turn and store it; its number."""
    trajectory, number = await store.begin_turn(JOB_ARN, name)
    await end_turn(store, trajectory, number)
    return number


async def seal(store: Store, name: str, token: str | None = None) -> None:
    """Seal a trajectory as ready."""
    await store.complete_rollout(job_arn=JOB_ARN, trajectory_id=name, completion=Status.READY, client_token=token)


async def reward(store: Store, name: str, value: float, token: str | None = None) -> None:
    """Give a trajectory its reward."""
    await store.update_reward(job_arn=JOB_ARN, trajectory_id=name, rewards=[value], client_token=token)


@asynccontextmanager
async def busy_writer(store: Store) -> AsyncIterator[None]:
    """While the writer is busy; what is written meanwhile becomes one batch."""
    started, released = threading.Event(), threading.Event()

    def block(_transaction: object) -> None:
        started.set()
        assert released.wait(PATIENCE)

    blocked = store._writer.change(("", ""), block)
    await asyncio.to_thread(started.wait, PATIENCE)
    try:
        yield
    finally:
        released.set()
        await blocked


async def handed_over(write: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A write that the writer has, and nobody has waited for yet."""
    task = asyncio.create_task(write)
    await asyncio.sleep(0)
    return task
