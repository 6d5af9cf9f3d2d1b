"""A job under way, and what others do to it at the same moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from emulator.job import Job, SecondaryStatus, move
from emulator.operations.control import Control
from emulator.pipeline import Execution, ExecutionStatus, Step, StepStatus
from emulator.pipeline_runs import Lineage, PipelineRuns
from emulator.store import Store
from emulator.store.jobs import change_job, create_job, find_job
from emulator.store.pipelines import create_execution, find_execution
from emulator.store.statements import Transaction
from emulator.trainer.jobs.run import JobRun, Stopped
from emulator.trainer.jobs.runner import Jobs
from emulator.trainer.jobs.services import JobFailed, Services
from emulator.trainer.jobs.untracked import Untracked
from tests.job_config import TRAINING
from tests.store.test_jobs import a_job
from tests.store.test_pipelines import an_execution


class Noted:
    """A `Cloud` and a `Lineage` that only note what they were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[str]]:
        async def note(*_arguments: object, **_more: object) -> str:
            self.asked.append(name)
            return "arn"

        return note


def with_services(body: Callable[[Store, Noted, Services], Awaitable[None]]) -> None:
    async def export(_job: Job) -> bytes:
        return b""

    async def run() -> None:
        store = Store(None, durability="memory", create_trajectories=True, any_job=True)
        await store.start()
        noted = Noted()
        cloud: Any = noted
        nobody: Any = None
        services = Services(
            store=store, runtime=nobody, cloud=cloud, tracker=Untracked(), policy=nobody, find_agent=nobody,
            export=export, rate=None,
        )  # fmt: skip
        try:
            await body(store, noted, services)
        finally:
            await store.aclose()

    asyncio.run(run())


def test_a_job_that_was_told_to_stop_this_moment_stops() -> None:
    """It is stored already, and the job has not heard of it."""

    async def body(store: Store, _noted: Noted, services: Services) -> None:
        job = a_job()
        await store.write(("", ""), create_job, job, most_active=None)
        run = JobRun(job, services)
        await store.write((job.arn, ""), change_job, job.arn, partial(move, to=SecondaryStatus.STOPPING, now=7))
        with pytest.raises(Stopped):
            await run.move(SecondaryStatus.DOWNLOADING)

    with_services(body)


def test_a_job_that_ended_while_it_was_looked_up_is_left_as_it_is() -> None:
    async def body(store: Store, noted: Noted, services: Services) -> None:
        output: Mapping[str, Any] = {"ProgressInfo": {"CurrentStep": 1}}
        stale = move(replace(a_job(), document=json.dumps(TRAINING), output=output), SecondaryStatus.STOPPING, 7)
        await store.write(("", ""), create_job, stale, most_active=None)
        ended = await store.write(
            ("", ""), change_job, stale.arn, partial(move, to=SecondaryStatus.STOPPED, now=8, message="Job stopped")
        )
        jobs = Jobs(services)
        jobs.resume(stale)
        await asyncio.gather(*jobs._tasks.values())
        assert await store.read(find_job, stale.arn) == ended
        assert noted.asked == []

    with_services(body)


class Stuck:
    """A `Lineage` that answers nothing until it is gone, as a server's own does that stops."""

    def __init__(self) -> None:
        self.was_asked, self.is_gone = asyncio.Event(), asyncio.Event()

    async def create_lineage(self, kind: str, members: Mapping[str, Any]) -> str:
        self.was_asked.set()
        await self.is_gone.wait()
        raise JobFailed("Could not connect")

    async def associate(self, source_arn: str, destination_arn: str, kind: str) -> None:
        """Is not asked."""


def lineage_execution() -> Execution:
    """One step, which creates one context."""
    arguments = {"Contexts": [{"ContextName": "c"}]}
    definition = json.dumps({"Steps": [{"Name": "s", "Type": "Lineage", "Arguments": arguments}]})
    return replace(an_execution(), definition=definition, parameters={})


def pipeline_runs(store: Store, lineage: Lineage) -> PipelineRuns:
    nobody: Any = None
    return PipelineRuns(Control(store, nobody, nobody, "us-west-2", "123456789012", aws_limits=False), lineage)


def test_a_step_does_not_fail_because_the_server_stops() -> None:
    async def body(store: Store, _noted: Noted, _services: Services) -> None:
        execution, lineage = lineage_execution(), Stuck()
        await store.write(("", ""), create_execution, execution)
        runs = pipeline_runs(store, lineage)
        runs.begin(execution)
        await lineage.was_asked.wait()
        runs.leave_off()
        lineage.is_gone.set()
        await runs.aclose()
        left = await store.read(find_execution, execution.arn)
        assert left is not None
        assert (left.status, [step.status for step in left.steps]) == (
            ExecutionStatus.EXECUTING,
            [StepStatus.EXECUTING],
        )

    with_services(body)


def test_an_execution_whose_database_takes_nothing_ends_when_it_takes_something_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(store: Store, noted: Noted, _services: Services) -> None:
        def sql(transaction: Transaction, text: str) -> None:
            transaction.driver.execute(text)

        execution = lineage_execution()
        await store.write(("", ""), create_execution, execution)
        refuse = "CREATE TRIGGER full BEFORE UPDATE ON pipeline_executions BEGIN SELECT raise(ABORT, 'full'); END"
        await store.write(("", ""), sql, refuse)
        lineage: Any = noted
        runs = pipeline_runs(store, lineage)
        runs.begin(execution)
        while "could not be written: full" not in caplog.text and runs.under_way:
            await store.read(find_execution, execution.arn)
        await store.write(("", ""), sql, "DROP TRIGGER full")
        await asyncio.gather(*runs._tasks.values())
        ended = await store.read(find_execution, execution.arn)
        assert ended is not None
        assert ended.status is ExecutionStatus.SUCCEEDED

    with_services(body)


def test_an_execution_that_ended_while_it_was_looked_up_is_left_as_it_is() -> None:
    async def body(store: Store, noted: Noted, _services: Services) -> None:
        stale = lineage_execution().with_step(Step("s", StepStatus.EXECUTING, 6), 6)
        ended = replace(stale.with_step(Step("s", StepStatus.SUCCEEDED, 6, 7), 7), status=ExecutionStatus.SUCCEEDED)
        await store.write(("", ""), create_execution, ended)
        lineage: Any = noted
        runs = pipeline_runs(store, lineage)
        runs.resume(stale)
        await asyncio.gather(*runs._tasks.values())
        assert await store.read(find_execution, stale.arn) == ended

    with_services(body)
