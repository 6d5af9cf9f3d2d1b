"""Turns and seals as operations ask for them: numbered as they arrive, and never at odds with the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from emulator.store import OpenTrajectory, Store, Turn
from emulator.trajectory import InvalidTransition, Status
from tests.conftest import JOB_ARN
from tests.stored import PATIENCE, stored, stored_turns


@asynccontextmanager
async def store_on(path: Path) -> AsyncIterator[Store]:
    store = Store(path, durability="normal", create_trajectories=True, any_job=True)
    await store.start()
    try:
        yield store
    finally:
        await store.aclose()


@dataclass
class Blocker:
    """A write that keeps the writer busy until it is released."""

    started: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __call__(self, _connection: object) -> None:
        self.started.set()
        assert self.released.wait(PATIENCE)


def test_no_turn_overtakes_one_that_still_waits_for_the_trajectory_to_be_there(database: Path) -> None:
    """The second arrives while the first creates the trajectory, the third when that is done."""

    async def body() -> None:
        async with store_on(database) as store:
            before, first_batch, second_batch = Blocker(), Blocker(), Blocker()

            async def arrive() -> int:
                return (await store.begin_turn(JOB_ARN, "t"))[1]

            blocks = [store._writer.change(("", ""), before)]
            await asyncio.to_thread(before.started.wait, PATIENCE)
            first = asyncio.create_task(arrive())
            await asyncio.sleep(0)
            blocks.append(store._writer.change(("", ""), first_batch))
            before.released.set()
            await asyncio.to_thread(first_batch.started.wait, PATIENCE)
            second = asyncio.create_task(arrive())
            await asyncio.sleep(0)
            blocks.append(store._writer.change(("", ""), second_batch))
            first_batch.released.set()
            assert await first == 0
            third = asyncio.create_task(arrive())
            await asyncio.sleep(0)
            second_batch.released.set()
            assert (await second, await third) == (1, 2)
            await asyncio.gather(*blocks)

    asyncio.run(body())


def test_a_seal_whose_client_went_away_is_known_to_the_next_sample(database: Path) -> None:
    async def body() -> None:
        async with store_on(database) as store:
            await store.begin_turn(JOB_ARN, "t")
            sealing = asyncio.create_task(
                store.complete_rollout(job_arn=JOB_ARN, trajectory_id="t", completion=Status.READY, client_token=None)
            )
            await asyncio.sleep(0)  # the change is with the writer now
            sealing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sealing
            await store.register_job(JOB_ARN)  # whatever was queued before it is committed
            assert stored(database, "t")[0].status is Status.READY
            with pytest.raises(InvalidTransition):
                await store.begin_turn(JOB_ARN, "t")

    asyncio.run(body())


async def end_turn(store: Store, trajectory: OpenTrajectory, number: int) -> None:
    turn = Turn(
        trajectory=trajectory.id,
        number=number,
        status="failed",
        path="/",
        http_status=None,
        content_type=None,
        error="refused",
        arrived_at=1,
        first_byte_at=None,
        ended_at=2,
        request=b"",
        response=b"",
    )
    await store.end_turn(trajectory, turn)


def test_numbers_go_on_where_they_were_after_a_restart(database: Path) -> None:
    async def body() -> None:
        for expected in range(3):
            async with store_on(database) as store:
                trajectory, number = await store.begin_turn(JOB_ARN, "t")
                assert number == expected
                await end_turn(store, trajectory, number)

    asyncio.run(body())


def test_numbers_go_on_although_more_trajectories_take_turns_than_are_kept_at_hand(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.store.store.LAST_OPENED", 1)

    async def body() -> None:
        async with store_on(database) as store:
            in_flight = []
            for expected in range(6):
                for name in ("a", "b", "c"):
                    trajectory, number = await store.begin_turn(JOB_ARN, name)
                    assert number == expected
                    if name == "a" or (name == "b" and expected % 2):
                        in_flight.append((trajectory, number))  # and ends after all the others
                    else:
                        await end_turn(store, trajectory, number)
                    del trajectory
            for trajectory, number in in_flight:
                await end_turn(store, trajectory, number)

    asyncio.run(body())
    for name in ("a", "b", "c"):
        assert [turn.number for turn in stored_turns(database, name)] == list(range(6))
