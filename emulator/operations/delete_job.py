"""DeleteJob: forget a job that has ended."""

from __future__ import annotations

from typing import Any

from emulator.job import ACTIVE, Job, JobBusy, JobStatus, SecondaryStatus, move
from emulator.operations.control import Control, read_category, to_its_end
from emulator.store import now
from emulator.store.jobs import change_job
from emulator.store.jobs import delete_job as forget_job


async def delete_job(control: Control, *, job_name: str, job_category: str) -> dict[str, Any]:
    """Forget a job; its trajectories stay.

    Raises ResourceNotFound, ResourceInUse for a job under way, InternalServiceError.
    """
    arn = control.arn(read_category(job_category), job_name)

    def deleting(job: Job) -> Job:
        if job.status in ACTIVE:
            raise JobBusy(f"Job {job.name} is {job.status}; stop it first")
        if job.status is JobStatus.DELETING:  # of a server that ended in the middle
            return job
        return move(job, SecondaryStatus.DELETING, now())

    async def delete() -> None:
        await control.store.write((arn, ""), change_job, arn, deleting)
        await control.store.write((arn, ""), forget_job, arn)

    await to_its_end(delete())
    return {}
