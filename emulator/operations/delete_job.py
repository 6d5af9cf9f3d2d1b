"""DeleteJob: forget a job that has ended."""

from __future__ import annotations

from typing import Any

from emulator.job import ACTIVE, Job, JobBusy, SecondaryStatus, move
from emulator.operations.control import CONTROL_ERRORS, Control, control_error, read_category
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
        return move(job, SecondaryStatus.DELETING, now())

    try:
        await control.store.write((arn, ""), change_job, arn, deleting)
        await control.store.write((arn, ""), forget_job, arn)
    except CONTROL_ERRORS as error:
        raise control_error(error) from error
    return {}
