"""DeleteJob: forget a job that has ended."""

from __future__ import annotations

from typing import Any

from emulator.job import ACTIVE, Job, JobBusy, JobStatus, SecondaryStatus, move
from emulator.operations.control import Control, read_category, to_its_end
from emulator.store import now
from emulator.store.jobs import change_job
from emulator.store.jobs import delete_job as forget_job
from emulator.store.statements import Transaction


async def delete_job(control: Control, *, job_name: str, job_category: str) -> dict[str, Any]:
    """Forget a job; its trajectories stay.

    Raises ResourceNotFound, ResourceInUse for a job under way, InternalServiceError.
    """
    arn = control.arn(read_category(job_category), job_name)
    await to_its_end(control.store.write((arn, ""), _delete, arn))
    return {}


def _delete(transaction: Transaction, arn: str) -> None:
    """In one transaction: a server that is killed leaves no job that is Deleting for ever."""
    change_job(transaction, arn, _deleting)
    forget_job(transaction, arn)


def _deleting(job: Job) -> Job:
    if job.status in ACTIVE:
        raise JobBusy(f"Job {job.name} is {job.status}; stop it first")
    return job if job.status is JobStatus.DELETING else move(job, SecondaryStatus.DELETING, now())
