"""Jobs in either database: created once, changed in one transaction, listed page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from emulator.address import Address
from emulator.job import Category, InvalidMove, Job, JobArn, JobStatus, SecondaryStatus, Transition, move
from emulator.store import Store
from emulator.store.jobs import (
    JobExists,
    JobFilter,
    JobNotFound,
    TooManyJobs,
    active_jobs,
    change_job,
    create_job,
    delete_job,
    find_job,
    list_jobs,
)


def a_job(name: str = "arithmetic", *, created_at: int = 5, category: Category = Category.TRAINING) -> Job:
    return Job(
        arn=str(JobArn("aws", "us-west-2", "123456789012", category, name)),
        category=category,
        name=name,
        role_arn="arn:aws:iam::123456789012:role/r",
        schema_version="1.0.0",
        document='{"prompt": "ä 🦊"}',
        created_at=created_at,
        modified_at=created_at,
        transitions=(Transition(SecondaryStatus.STARTING, created_at, message="Job created"),),
        output={"RolloutInfo": {"Total": 3}},
        tags={"team": "a", "": ""},
    )


@asynccontextmanager
async def opened(address: Address) -> AsyncIterator[Store]:
    store = Store(address, durability="normal", create_trajectories=True, any_job=False)
    await store.start()
    try:
        yield store
    finally:
        await store.aclose()


async def write(store: Store, change: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    return await store.write(("jobs", ""), change, *arguments, **more)


def with_store(address: Address, body: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(address) as store:
            await body(store)

    asyncio.run(run())


def test_a_job_comes_back_as_it_was_stored_also_after_a_restart(any_database: Address) -> None:
    job = replace(a_job(), failure_reason="", ended_at=9)

    async def store_it(store: Store) -> None:
        await write(store, create_job, a_job(), most_active=None)
        await write(store, change_job, job.arn, lambda _: job)

    async def look(store: Store) -> None:
        assert await store.read(find_job, job.arn) == job
        assert await store.read(find_job, job.arn + "x") is None

    with_store(any_database, store_it)
    with_store(any_database, look)


def test_a_name_is_taken_within_its_category(any_database: Address) -> None:
    async def body(store: Store) -> None:
        await write(store, create_job, a_job(), most_active=None)
        await write(store, create_job, a_job(category=Category.EVALUATION), most_active=None)
        with pytest.raises(JobExists, match="arithmetic exists"):
            await write(store, create_job, a_job(), most_active=None)

    with_store(any_database, body)


def test_no_more_jobs_of_a_category_are_under_way_than_may_be(any_database: Address) -> None:
    stopping = partial(move, to=SecondaryStatus.STOPPING, now=6)

    async def body(store: Store) -> None:
        await write(store, create_job, a_job("one"), most_active=1)
        await write(store, create_job, a_job("one", category=Category.EVALUATION), most_active=1)
        await write(store, change_job, a_job("one").arn, stopping)
        with pytest.raises(TooManyJobs):
            await write(store, create_job, a_job("two"), most_active=1)
        assert await store.read(find_job, a_job("two").arn) is None
        await write(store, change_job, a_job("one").arn, lambda job: move(job, SecondaryStatus.STOPPED, 7))
        await write(store, create_job, a_job("two"), most_active=1)
        assert [job.name for job in await write(store, active_jobs)] == ["one", "two"]

    with_store(any_database, body)


def test_a_move_that_cannot_be_changes_nothing(any_database: Address) -> None:
    async def body(store: Store) -> None:
        await write(store, create_job, a_job(), most_active=None)
        with pytest.raises(InvalidMove):
            await write(store, change_job, a_job().arn, lambda job: move(job, SecondaryStatus.DELETING, 7))
        with pytest.raises(JobNotFound):
            await write(store, change_job, "arn", lambda job: job)
        assert await store.read(find_job, a_job().arn) == a_job()

    with_store(any_database, body)


def test_changes_of_several_servers_follow_each_other(postgresql_database: Address) -> None:
    def count(job: Job) -> Job:
        return replace(job, output={"count": job.output.get("count", 0) + 1})

    async def body() -> None:
        async with opened(postgresql_database) as one, opened(postgresql_database) as two:
            await write(one, create_job, a_job(), most_active=None)
            await asyncio.gather(*(write(store, change_job, a_job().arn, count) for store in [one, two] * 20))
            job = await one.read(find_job, a_job().arn)
            assert job is not None
            assert job.output["count"] == 40

    asyncio.run(body())


def test_a_created_job_is_known_until_it_is_deleted(any_database: Address) -> None:
    async def body(store: Store) -> None:
        await write(store, create_job, a_job(), most_active=None)
        await store.register_trajectory(a_job().arn, "t")
        await write(store, delete_job, a_job().arn)
        await write(store, delete_job, a_job().arn)
        assert await store.read(find_job, a_job().arn) is None
        with pytest.raises(Exception, match="Could not find job"):
            await store.register_trajectory(a_job().arn, "t-2")

    with_store(any_database, body)


async def pages(store: Store, which: JobFilter, *, sort_by: str, descending: bool) -> list[str]:
    names: list[str] = []
    after = None
    while True:
        page = await store.read(list_jobs, which, sort_by=sort_by, descending=descending, limit=2, after=after)
        names += [job.name for job, _ in page]
        if len(page) < 2:
            return names
        after = page[-1][1]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(
    ("sort_by", "names"),
    [
        ("Name", ["a-1", "a-2", "b-1", "b-2", "c-10"]),
        ("CreationTime", ["c-10", "b-2", "b-1", "a-2", "a-1"]),  # two of the same time: as they came
        ("Status", ["a-1", "c-10", "b-2", "b-1", "a-2"]),
    ],
)
def test_pages_hold_each_job_once_in_any_order(
    any_database: Address, sort_by: str, names: list[str], descending: bool
) -> None:
    async def body(store: Store) -> None:
        for name, time in (("c-10", 1), ("b-2", 2), ("b-1", 2), ("a-2", 3), ("a-1", 4)):
            await write(store, create_job, a_job(name, created_at=time), most_active=None)
        await write(store, create_job, a_job("other", category=Category.EVALUATION), most_active=None)
        await write(store, change_job, a_job("a-1").arn, lambda job: move(job, SecondaryStatus.COMPLETED, 9))
        which = JobFilter(Category.TRAINING)
        found = await pages(store, which, sort_by=sort_by, descending=descending)
        assert found == (names[::-1] if descending else names)

    with_store(any_database, body)


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ({"name_contains": "1"}, ["a-1", "b-1"]),
        ({"name_contains": "%"}, []),
        ({"status": JobStatus.COMPLETED}, ["a-1"]),
        ({"created_after": 2}, ["b-1"]),
        ({"created_before": 2}, ["a-1"]),
        ({"modified_after": 3}, ["a-1"]),
        ({"modified_before": 9}, ["a-2", "b-1"]),
    ],
)
def test_a_listing_holds_what_was_asked_for(any_database: Address, which: dict[str, Any], names: list[str]) -> None:
    async def body(store: Store) -> None:
        for name, time in (("a-1", 1), ("a-2", 2), ("b-1", 3)):
            await write(store, create_job, a_job(name, created_at=time), most_active=None)
        await write(store, change_job, a_job("a-1").arn, lambda job: move(job, SecondaryStatus.COMPLETED, 9))
        assert await pages(store, JobFilter(Category.TRAINING, **which), sort_by="Name", descending=False) == names

    with_store(any_database, body)
