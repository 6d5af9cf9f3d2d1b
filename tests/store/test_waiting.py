"""Waiting for a trajectory to settle, giving one up, and readers who leave in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from emulator.address import Address
from emulator.store import Store, queries
from emulator.store.queries import TrajectoryFilter
from emulator.trajectory import Status, UnknownTrajectory
from tests.conftest import JOB_ARN
from tests.stored import PATIENCE

T = (JOB_ARN, "t")


@asynccontextmanager
async def store_on(address: Address | None) -> AsyncIterator[Store]:
    durability = "normal" if address else "memory"
    store = Store(address, durability=durability, create_trajectories=True, any_job=True)
    await store.start()
    try:
        yield store
    finally:
        await store.aclose()


async def seal(store: Store, trajectory_id: str = "t", completion: Status = Status.READY) -> None:
    await store.complete_rollout(job_arn=JOB_ARN, trajectory_id=trajectory_id, completion=completion, client_token=None)


async def reward(store: Store) -> None:
    await store.update_reward(job_arn=JOB_ARN, trajectory_id="t", rewards=[1.0], client_token=None)


def test_who_waits_goes_on_when_the_reward_is_there_or_the_agent_has_failed(any_database: Address) -> None:
    async def body() -> None:
        async with store_on(any_database) as store, asyncio.timeout(PATIENCE):
            await store.register_trajectory(*T)
            first, second = (asyncio.create_task(store.settled(*T)) for _ in range(2))
            await seal(store)
            await asyncio.wait((first, second), timeout=0.1)
            assert not first.done()
            await reward(store)
            await asyncio.gather(first, second)
            await store.settled(*T)  # it is still

            await store.register_trajectory(JOB_ARN, "failed")
            waiting = asyncio.create_task(store.settled(JOB_ARN, "failed", is_new=True))
            await asyncio.sleep(0)
            await seal(store, "failed", Status.FAILED)
            await waiting

    asyncio.run(body())


def test_on_a_shared_database_it_does_not_matter_which_server_took_the_reward(postgresql_database: Address) -> None:
    async def body() -> None:
        async with store_on(postgresql_database) as store, store_on(postgresql_database) as other:
            async with asyncio.timeout(PATIENCE):
                await store.register_trajectory(*T)
                waiting = asyncio.create_task(store.settled(*T))
                await seal(other)
                await reward(other)
                await waiting

    asyncio.run(body())


def test_an_unknown_trajectory_is_not_waited_for(database: Address) -> None:
    async def body() -> None:
        async with store_on(database) as store:
            with pytest.raises(UnknownTrajectory):
                await store.settled(*T)

    asyncio.run(body())


def test_nobody_waits_for_a_store_that_is_stopping(database: Address) -> None:
    async def body() -> None:
        async with store_on(database) as store, asyncio.timeout(PATIENCE):
            await store.register_trajectory(*T)
            waiting = asyncio.create_task(store.settled(*T))
            await asyncio.sleep(0)
            store.end_waiting()
            await waiting
            await store.settled(*T)

    asyncio.run(body())


def test_what_is_given_up_is_sealed_as_failed_unless_it_was_sealed(database: Address) -> None:
    async def body() -> None:
        async with store_on(database) as store:
            await store.register_trajectory(*T)
            assert await store.give_up(*T)
            assert not await store.give_up(*T)
            (record,) = await store.read(queries.list_trajectories, TrajectoryFilter(), limit=2)
            assert (record.status, record.completion, record.eligible) == (Status.FAILED, Status.FAILED, False)
            with pytest.raises(UnknownTrajectory):
                await store.give_up(job_arn=JOB_ARN, trajectory_id="unknown")

    asyncio.run(body())


def test_a_reader_that_leaves_in_the_middle_holds_nobody_up() -> None:
    """In memory a statement that is left open keeps others waiting, until they give up after 5 seconds."""

    async def body() -> None:
        async with store_on(None) as store, asyncio.timeout(4.5):
            for number in range(20):
                await store.register_trajectory(JOB_ARN, f"t-{number}")
                reading = asyncio.create_task(store.read(queries.list_trajectories, TrajectoryFilter(), limit=500))
                for _ in range(number):
                    await asyncio.sleep(0)
                reading.cancel()
            await store.register_trajectory(*T)
            assert len(await store.read(queries.list_trajectories, TrajectoryFilter(), limit=500)) == 21

    asyncio.run(body())
