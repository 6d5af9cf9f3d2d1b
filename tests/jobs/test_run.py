"""A job under way, and what others do to it at the same moment."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from emulator.job import SecondaryStatus, move
from emulator.store import Store
from emulator.store.jobs import change_job, create_job
from emulator.trainer.jobs.run import JobRun, Stopped
from emulator.trainer.jobs.services import Services
from tests.store.test_jobs import a_job


def test_a_job_that_was_told_to_stop_this_moment_stops() -> None:
    """It is stored already, and the job has not heard of it."""

    async def body() -> None:
        store = Store(None, durability="memory", create_trajectories=True, any_job=True)
        await store.start()
        nobody: Any = None
        services = Services(store, nobody, nobody, nobody, nobody, nobody, nobody, None)
        job = a_job()
        await store.write(("", ""), create_job, job, most_active=None)
        run = JobRun(job, services)
        await store.write((job.arn, ""), change_job, job.arn, partial(move, to=SecondaryStatus.STOPPING, now=7))
        with pytest.raises(Stopped):
            await run.move(SecondaryStatus.DOWNLOADING)
        await store.aclose()

    asyncio.run(body())
