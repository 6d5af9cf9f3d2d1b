"""What changes jobs is done to its end, although its client goes away, or its server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from emulator.job import Job, JobStatus, SecondaryStatus, move
from emulator.operations.control import Control
from emulator.operations.create_job import create_job
from emulator.operations.delete_job import delete_job
from emulator.operations.stop_job import stop_job
from emulator.pipeline import Execution
from emulator.store import Store
from emulator.store.jobs import change_job, find_job
from tests.job_config import TRAINING
from tests.store.rollouts import busy_writer
from tests.stored import eventually

ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/j"
NAMED = {"job_name": "j", "job_category": "AgentRFT"}


class Noted:
    """Whoever does jobs and executions, and only notes what it was told to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def begin(self, job: Job) -> None:
        self.told.append(("begin", job.arn))

    def stop(self, arn: str) -> None:
        self.told.append(("stop", arn))

    async def find_pipeline(self, name: str) -> tuple[str, str] | None:
        return None

    def begin_execution(self, execution: Execution) -> None:
        self.told.append(("begin", execution.arn))

    def stop_execution(self, arn: str) -> None:
        self.told.append(("stop", arn))


async def create(control: Control) -> None:
    await create_job(
        control, **NAMED, role_arn="arn", job_config_schema_version="1.0.0", job_config_document=json.dumps(TRAINING),
        tags=None,
    )  # fmt: skip


def with_control(body: Callable[[Control, Noted], Awaitable[None]]) -> None:
    async def run() -> None:
        store = Store(None, durability="memory", create_trajectories=True, any_job=True)
        await store.start()
        noted = Noted()
        try:
            await body(Control(store, noted, noted, "us-west-2", "123456789012", aws_limits=False), noted)
        finally:
            await store.aclose()

    asyncio.run(run())


async def with_a_client_that_leaves(store: Store, call: Awaitable[Any]) -> None:
    """Call; the client goes away while the writer has what is to be written."""
    async with busy_writer(store):
        calling = asyncio.ensure_future(call)
        await asyncio.to_thread(eventually, lambda: bool(store._writer._waiting), "something to write")
        calling.cancel()
        with suppress(asyncio.CancelledError):
            await calling
    await store.write(("z", ""), lambda _: None)  # after all that was handed over
    await asyncio.sleep(0)


def test_a_job_whose_client_leaves_is_begun_all_the_same() -> None:
    async def body(control: Control, noted: Noted) -> None:
        await with_a_client_that_leaves(control.store, create(control))
        assert await control.store.read(find_job, ARN) is not None
        assert noted.told == [("begin", ARN)]

    with_control(body)


def test_a_job_whose_client_leaves_is_stopped_all_the_same() -> None:
    async def body(control: Control, noted: Noted) -> None:
        await create(control)
        await with_a_client_that_leaves(control.store, stop_job(control, **NAMED))
        assert noted.told == [("begin", ARN), ("stop", ARN)]

    with_control(body)


def test_a_job_that_another_server_was_deleting_when_it_ended_can_be_deleted() -> None:
    async def body(control: Control, noted: Noted) -> None:
        await create(control)
        for status in (SecondaryStatus.COMPLETED, SecondaryStatus.DELETING):
            await control.store.write((ARN, ""), change_job, ARN, partial(move, to=status, now=7))
        job = await control.store.read(find_job, ARN)
        assert job is not None
        assert job.status is JobStatus.DELETING
        await delete_job(control, **NAMED)
        assert await control.store.read(find_job, ARN) is None

    with_control(body)
