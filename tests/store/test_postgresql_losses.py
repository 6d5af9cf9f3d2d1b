"""A connection to PostgreSQL may be lost at any moment: every write has one effect, and the right answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest

from emulator.address import DatabaseURL
from emulator.store import Store, StoreError
from emulator.trajectory import InvalidTransition, Status
from tests.conftest import JOB_ARN
from tests.postgresql import PostgreSQL
from tests.postgresql_proxy import Fate, PostgreSQLProxy, is_answered, is_commit, is_first, nth
from tests.store.rollouts import busy_writer, end_turn, handed_over, request, reward, seal, store_on, take_turn
from tests.stored import PATIENCE, all_stored, eventually, stored, stored_turns

LOSSES = [Fate.IS_LOST, Fate.LOSES_ITS_ANSWER]


async def one_of_each(store: Store, prefix: str, begin: Callable[[], object], gone: bool = False) -> None:
    """A batch with everything that can be written, and whether its callers hear what they should.

    `gone`: and with a turn that cannot be stored, so that after an attempt all are written one by one.
    """
    prepared = ("going on", "to seal", "to seal once", "sealed", "rewarded")
    await asyncio.gather(*(take_turn(store, f"{prefix} {name}") for name in prepared))
    await asyncio.gather(*(seal(store, f"{prefix} {name}") for name in ("sealed", "rewarded")))
    running, number = await store.begin_turn(JOB_ARN, f"{prefix} going on")
    lost, _ = await store.begin_turn(JOB_ARN, f"{prefix} going on")
    lost.id = -1
    writes = (
        store.begin_turn(JOB_ARN, f"{prefix} new"),
        store.begin_turn(JOB_ARN, f"{prefix} going on"),
        end_turn(store, running, number),
        seal(store, f"{prefix} to seal"),
        seal(store, f"{prefix} to seal once", token=f"{prefix} token"),
        seal(store, f"{prefix} sealed"),
        reward(store, f"{prefix} rewarded", 0.5),
        store.register_job(f"{JOB_ARN}-{prefix}"),
        store.register_trajectory(JOB_ARN, f"{prefix} registered"),
        *([end_turn(store, lost, 0)] if gone else []),
    )
    async with busy_writer(store):
        handed = [await handed_over(write) for write in writes]
        begin()
    outcomes: Any = await asyncio.gather(*handed, return_exceptions=True)
    new, going_on, *others = outcomes
    assert (new[1], going_on[1]) == (0, 3)
    expected = [None, None, None, InvalidTransition, None, None, None] + [StoreError] * gone
    assert [None if outcome is None else type(outcome) for outcome in others] == expected, outcomes
    assert await take_turn(store, f"{prefix} new") == 1
    await end_turn(store, *going_on)
    assert await take_turn(store, f"{prefix} going on") == 4


EXPECTED = {
    "new": (Status.OPEN, [1], None),
    "going on": (Status.OPEN, [0, 1, 3, 4], None),
    "to seal": (Status.READY, [0], None),
    "to seal once": (Status.READY, [0], None),
    "sealed": (Status.READY, [0], None),
    "rewarded": (Status.REWARD_RECEIVED, [0], [0.5]),
    "registered": (Status.OPEN, [], None),
}


def check_one_of_each(url: DatabaseURL, rounds: int) -> None:
    """Whether each batch was written once."""
    found = all_stored(url)
    assert len(found) == rounds * len(EXPECTED)
    for prefix in range(rounds):
        for name, (status, numbers, rewards) in EXPECTED.items():
            trajectory, turns = found[JOB_ARN, f"{prefix} {name}"]
            assert (trajectory.status, [turn.number for turn in turns], trajectory.rewards) == (
                status,
                numbers,
                rewards,
            )
            assert [turn.request for turn in turns] == [request(number) for number in numbers]


@pytest.mark.parametrize("fate", LOSSES)
def test_whichever_message_a_lost_connection_takes_with_it_a_batch_is_written_once(
    postgresql_database: DatabaseURL, proxy: PostgreSQLProxy, fate: Fate
) -> None:
    async def body() -> int:
        async with store_on(proxy.url(postgresql_database)) as store:
            for round_ in count():
                await one_of_each(store, str(round_), partial(proxy.once, fate, nth(round_, is_answered)))
                if not proxy.happened.is_set():
                    return round_ + 1
        raise AssertionError

    rounds = asyncio.run(body())
    assert rounds > 20
    check_one_of_each(postgresql_database, rounds)


@pytest.mark.parametrize("fate", LOSSES)
def test_writes_that_are_committed_one_by_one_because_another_one_failed_are_written_once(
    postgresql_database: DatabaseURL, proxy: PostgreSQLProxy, fate: Fate
) -> None:
    async def body() -> int:
        async with store_on(proxy.url(postgresql_database)) as store:
            for round_ in count():
                await one_of_each(store, str(round_), partial(proxy.once, fate, nth(round_, is_commit)), gone=True)
                if not proxy.happened.is_set():
                    return round_ + 1
        raise AssertionError

    rounds = asyncio.run(body())
    assert rounds > 10
    check_one_of_each(postgresql_database, rounds)


def test_every_commit_may_lose_its_answer(postgresql_database: DatabaseURL, proxy: PostgreSQLProxy) -> None:
    async def body() -> None:
        async with store_on(proxy.url(postgresql_database)) as store:
            await take_turn(store, "t")
            proxy.decide = lambda kind, text: Fate.LOSES_ITS_ANSWER if is_commit(kind, text) else Fate.PASSES
            assert [await take_turn(store, "t") for _ in range(5)] == [1, 2, 3, 4, 5]
            await seal(store, "t")
            await reward(store, "t", 1.0)

    asyncio.run(body())
    trajectory, turns = stored(postgresql_database, "t")
    assert (trajectory.rewards, [turn.number for turn in turns]) == ([1.0], [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("arrives", [True, False], ids=["that arrives late", "that never arrives"])
def test_a_commit_on_its_way_when_the_connection_is_back_is_waited_for(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL, proxy: PostgreSQLProxy, arrives: bool
) -> None:
    """A transaction that is not over yet: what becomes of it decides whether it is repeated."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%writers%'"

    async def body() -> None:
        async with store_on(proxy.url(postgresql_database)) as store:
            # The first of all: nothing was ever committed that could be asked for.
            proxy.once(Fate.IS_HELD, is_commit)
            first = await handed_over(store.begin_turn(JOB_ARN, "t"))
            asked = lambda: postgresql.execute(waiting) == [(1,)]  # noqa: E731
            await asyncio.to_thread(eventually, asked, "the writer to ask after its commit")
            proxy.let_go(deliver=arrives)
            trajectory, number = await first
            assert number == 0
            await end_turn(store, trajectory, number)
            proxy.once(Fate.IS_HELD, is_commit)
            sealing = await handed_over(seal(store, "t"))
            await asyncio.to_thread(eventually, asked, "the writer to ask after its commit")
            proxy.let_go(deliver=arrives)
            await sealing  # and there is no Conflict
            with pytest.raises(InvalidTransition):
                await store.begin_turn(JOB_ARN, "t")

    asyncio.run(body())
    trajectory, turns = stored(postgresql_database, "t")
    assert (trajectory.status, [turn.number for turn in turns]) == (Status.READY, [0])


def test_a_commit_that_a_crash_undid_is_not_taken_for_what_others_commit_afterwards(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL, proxy: PostgreSQLProxy
) -> None:
    """After a crash PostgreSQL gives the numbers of transactions that came to nothing to others."""

    async def body() -> None:
        async with store_on(proxy.url(postgresql_database)) as store:
            trajectory, number = await store.begin_turn(JOB_ARN, "t")
            proxy.once(Fate.IS_HELD, is_commit)
            ending = await handed_over(end_turn(store, trajectory, number))
            await asyncio.to_thread(proxy.happened.wait, PATIENCE)
            proxy.refuse_connections()
            await asyncio.to_thread(postgresql.restart, "immediate")
            async with store_on(postgresql_database) as other:
                for _ in range(5):
                    await take_turn(other, "other")
            proxy.accept_connections()
            await ending

    asyncio.run(body())
    assert [turn.number for turn in stored_turns(postgresql_database, "t")] == [0]
    assert len(stored_turns(postgresql_database, "other")) == 5


def test_a_connection_that_was_lost_while_there_was_nothing_to_do_is_noticed_by_nobody(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL, proxy: PostgreSQLProxy
) -> None:
    async def body() -> None:
        async with store_on(proxy.url(postgresql_database)) as store:
            await take_turn(store, "t")
            for _ in range(3):
                proxy.cut_all()
                assert await take_turn(store, "t") > 0
            proxy.once(Fate.IS_LOST, is_first)  # nor is another one while it connects
            proxy.cut_all()
            await seal(store, "t")

    asyncio.run(body())
    assert len(stored_turns(postgresql_database, "t")) == 4
