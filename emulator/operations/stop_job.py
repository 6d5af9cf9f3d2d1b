"""StopJob: end a job before it is done, keeping what it has come to."""

from __future__ import annotations

from typing import Any

from emulator.job import Job, SecondaryStatus, move
from emulator.operations.control import Control, read_category, to_its_end
from emulator.store import now
from emulator.store.jobs import change_job


async def stop_job(control: Control, *, job_name: str, job_category: str) -> dict[str, Any]:
    """Have a job under way stop; once more, it changes nothing.

    Raises ResourceNotFound, ValidationException for a job that has ended, InternalServiceError.
    """
    arn = control.arn(read_category(job_category), job_name)

    def stopping(job: Job) -> Job:
        if job.secondary_status is SecondaryStatus.STOPPING:
            return job
        return move(job, SecondaryStatus.STOPPING, now(), "Stopping the job")

    async def stop() -> None:
        await control.store.write((arn, ""), change_job, arn, stopping)
        control.runner.stop(arn)

    await to_its_end(stop())
    return {}
