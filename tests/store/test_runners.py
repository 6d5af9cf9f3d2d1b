"""Which of the servers that share a database does a job, or a pipeline execution: one, and another when it is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from emulator.address import DatabaseURL
from emulator.job import Category, Job, SecondaryStatus, move
from emulator.pipeline import ExecutionStatus
from emulator.store import Store
from emulator.store.jobs import (
    JobTaken,
    TooManyJobs,
    change_job,
    create_job,
    find_job,
    note_attempt,
    note_result,
    rollouts_of_part,
)
from emulator.store.pipelines import ExecutionTaken, change_execution, create_execution
from emulator.store.runners import LEASE, Held, hold, leave
from tests.postgresql import PostgreSQL
from tests.store.rollouts import store_on
from tests.store.test_jobs import a_job
from tests.store.test_pipelines import an_execution

Body = Callable[[Store, Store], Awaitable[None]]


@asynccontextmanager
async def stores(url: DatabaseURL, count: int) -> AsyncIterator[list[Store]]:
    """As of so many servers."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(store_on(url)) for _ in range(count)]


def with_two(url: DatabaseURL, body: Body) -> None:
    async def run() -> None:
        async with stores(url, 2) as (one, other):
            await body(one, other)

    asyncio.run(run())


async def look(store: Store) -> Held:
    assert store.runner is not None
    return await store.write(("", ""), hold, store.runner)


async def create(store: Store, name: str = "j") -> Job:
    await store.write(("", ""), create_job, a_job(name), most_active=None, runner=store.runner)
    return a_job(name)


def silence(postgresql: PostgreSQL, url: DatabaseURL, store: Store, *, since: float = LEASE + 1) -> None:
    """Have it not been heard of for so many seconds."""
    postgresql.execute(
        "UPDATE runners SET seen_at = seen_at - %s WHERE id = %s", int(since * 1_000_000), store.runner,
        database=url.conninfo.rpartition("/")[2],
    )  # fmt: skip


def renamed(name: str) -> Callable[[Job], Job]:
    return lambda job: replace(job, output={"changed by": name})


def test_a_file_s_server_is_no_runner(tmp_path: object) -> None:
    async def body() -> None:
        async with store_on(None) as store:  # type: ignore[arg-type]
            assert store.runner is None

    asyncio.run(body())


def test_who_is_heard_of_keeps_what_it_does(postgresql_database: DatabaseURL) -> None:
    async def body(one: Store, other: Store) -> None:
        await look(one)
        job = await create(one)
        await one.write(("", ""), create_execution, an_execution(), runner=one.runner)
        assert await look(other) == Held([], [], 0)
        assert await look(one) == Held([job], [an_execution()], 0)

    with_two(postgresql_database, body)


def test_what_belongs_to_nobody_is_taken(postgresql_database: DatabaseURL) -> None:
    """As it comes from a file, say."""

    async def body(one: Store, other: Store) -> None:
        await one.write(("", ""), create_job, a_job(), most_active=None)
        await one.write(("", ""), create_execution, an_execution())
        assert await look(one) == Held([a_job()], [an_execution()], 2)
        assert await look(other) == Held([], [], 0)

    with_two(postgresql_database, body)


def test_what_is_over_is_nobody_s(postgresql_database: DatabaseURL) -> None:
    async def body(one: Store, other: Store) -> None:
        await one.write(("", ""), create_job, a_job(), most_active=None)
        await one.write(("", ""), change_job, a_job().arn, partial(move, to=SecondaryStatus.COMPLETED, now=7))
        ended = replace(an_execution(), status=ExecutionStatus.SUCCEEDED)
        await one.write(("", ""), create_execution, ended)
        assert await look(other) == Held([], [], 0)

    with_two(postgresql_database, body)


@pytest.mark.parametrize("how", ["silent", "ahead", "leaves"])
def test_from_who_is_gone_it_is_taken_and_he_can_write_no_more_to_it(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL, how: str
) -> None:
    async def body(one: Store, other: Store) -> None:
        await look(one)
        job = await create(one)
        await one.write(("", ""), create_execution, an_execution(), runner=one.runner)
        note = ("train-1", 0, 0)
        await one.write((job.arn, ""), note_attempt, job.arn, *note, "first", runner=one.runner)
        if how == "silent":
            silence(postgresql, postgresql_database, one)
        elif how == "ahead":  # of a database whose clock was set back, or of a standby that took over
            silence(postgresql, postgresql_database, one, since=-3600)
        else:
            assert one.runner is not None
            await one.write(("", ""), leave, one.runner)
        assert await look(other) == Held([job], [an_execution()], 2)
        for change in (
            partial(change_job, arn=job.arn, change=renamed("one")),
            partial(note_attempt, arn=job.arn, part="train-1", row=0, member=0, trajectory_id="late"),
            partial(note_result, arn=job.arn, part="train-1", row=0, member=0, result="{}"),
        ):
            with pytest.raises(JobTaken):
                await one.write((job.arn, ""), partial(change, runner=one.runner))
        with pytest.raises(ExecutionTaken):
            await one.write(("", ""), change_execution, an_execution().arn, lambda each: each, runner=one.runner)
        assert await look(one) == Held([], [], 0)  # it is there again, too late
        await other.write((job.arn, ""), change_job, job.arn, renamed("other"), runner=other.runner)
        await other.write((job.arn, ""), note_result, job.arn, *note, "{}", runner=other.runner)
        found = await other.read(find_job, job.arn)
        assert found is not None
        assert found.output == {"changed by": "other"}
        assert await other.read(rollouts_of_part, job.arn, "train-1") == {(0, 0): ("first", "{}")}
        # What anybody may ask of it, anybody may.
        await one.write((job.arn, ""), change_job, job.arn, partial(move, to=SecondaryStatus.STOPPING, now=7))

    with_two(postgresql_database, body)


def test_who_was_silent_and_looks_first_keeps_what_it_does(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL
) -> None:
    async def body(one: Store, other: Store) -> None:
        await look(one)
        job = await create(one)
        silence(postgresql, postgresql_database, one)
        assert await look(one) == Held([job], [], 0)
        assert await look(other) == Held([], [], 0)

    with_two(postgresql_database, body)


def test_of_many_that_look_at_once_one_gets_each_job(postgresql_database: DatabaseURL) -> None:
    async def body() -> None:
        async with stores(postgresql_database, 6) as all_:
            for round_ in range(10):
                names = [f"{round_}-{number}" for number in range(5)]
                for name in names:
                    await all_[0].write(("", ""), create_job, a_job(name), most_active=None)
                held = await asyncio.gather(*map(look, all_))
                found = Counter(job.name for each in held for job in each.jobs if job.name in names)
                assert found == dict.fromkeys(names, 1)
                assert sum(each.taken for each in held) == len(names)

    asyncio.run(body())


def test_of_jobs_that_are_created_at_once_no_more_are_under_way_than_may_be(postgresql_database: DatabaseURL) -> None:
    async def body() -> None:
        async with stores(postgresql_database, 6) as all_:
            for category in Category:
                jobs = [a_job(str(number), category=category) for number in range(len(all_))]
                outcomes = await asyncio.gather(
                    *(
                        store.write(("", ""), create_job, job, most_active=1, runner=store.runner)
                        for store, job in zip(all_, jobs, strict=True)
                    ),
                    return_exceptions=True,
                )
                assert Counter(map(type, outcomes)) == {type(None): 1, TooManyJobs: len(all_) - 1}

    asyncio.run(body())
