"""Pipeline executions in either database: begun once for a token, changed in one transaction, listed page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from emulator.address import Address
from emulator.pipeline import Execution, ExecutionStatus, Step, StepStatus
from emulator.store import Store
from emulator.store.pipelines import (
    ExecutionNotFound,
    change_execution,
    create_execution,
    executions_under_way,
    find_execution,
    list_executions,
)

PIPELINE = "arn:aws:sagemaker:us-west-2:123456789012:pipeline/p"


def an_execution(name: str = "a", *, created_at: int = 5) -> Execution:
    return Execution(
        arn=f"{PIPELINE}/execution/{name}",
        pipeline="p",
        token=f"token-{name}",
        definition='{"Steps": []}',
        parameters={"ä": "🦊"},
        created_at=created_at,
        modified_at=created_at,
    )


def with_store(address: Address, body: Callable[[Store], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store(address, durability="normal", create_trajectories=True, any_job=True)
        await store.start()
        try:
            await body(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def test_an_execution_is_begun_once_for_a_token(any_database: Address) -> None:
    async def body(store: Store) -> None:
        assert await store.write(("", ""), create_execution, an_execution()) == (an_execution(), True)
        again = replace(an_execution("b"), token="token-a")
        assert await store.write(("", ""), create_execution, again) == (an_execution(), False)
        assert await store.read(find_execution, again.arn) is None

    with_store(any_database, body)


def test_a_reset_leaves_no_execution_behind(any_database: Address) -> None:
    async def body(store: Store) -> None:
        await store.write(("", ""), create_execution, an_execution())
        await store.reset()
        assert await store.write(("", ""), executions_under_way) == []
        assert await store.read(find_execution, an_execution().arn) is None

    with_store(any_database, body)


def test_an_execution_comes_back_as_it_was_stored_also_after_a_restart(any_database: Address) -> None:
    step = Step("s", StepStatus.FAILED, 6, 7, "why", {"job": {"arn": "arn"}})
    ended = replace(an_execution().with_step(step, 8), status=ExecutionStatus.FAILED, failure_reason="because")

    async def store_it(store: Store) -> None:
        for each in (an_execution(), an_execution("b")):
            await store.write(("", ""), create_execution, each)
        await store.write(("", ""), change_execution, ended.arn, lambda _: ended)

    async def look(store: Store) -> None:
        assert await store.read(find_execution, ended.arn) == ended
        assert await store.write(("", ""), executions_under_way) == [an_execution("b")]
        with pytest.raises(ExecutionNotFound):
            await store.write(("", ""), change_execution, "absent", lambda execution: execution)

    with_store(any_database, store_it)
    with_store(any_database, look)


def test_a_reset_forgets_executions(any_database: Address) -> None:
    async def body(store: Store) -> None:
        await store.write(("", ""), create_execution, an_execution())
        await store.reset()
        assert await store.read(find_execution, an_execution().arn) is None

    with_store(any_database, body)


@pytest.mark.parametrize("sort_by", ["CreationTime", "PipelineExecutionArn"])
@pytest.mark.parametrize("descending", [False, True])
def test_executions_are_listed_page_by_page(any_database: Address, sort_by: str, descending: bool) -> None:
    async def body(store: Store) -> None:
        for number, name in enumerate("abc"):
            await store.write(("", ""), create_execution, an_execution(name, created_at=number))
        found: list[str] = []
        after = None
        while True:
            page = await store.read(
                list_executions, "p", created_after=None, created_before=2, sort_by=sort_by,
                descending=descending, limit=1, after=after,
            )  # fmt: skip
            if not page:
                break
            ((execution, after),) = page
            found.append(execution.id)
        assert found == (["b", "a"] if descending else ["a", "b"])

    with_store(any_database, body)
