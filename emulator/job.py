"""Jobs and their state machine. Pure: no I/O, no clock. Times are microseconds since 1970, UTC.

InProgress ──▶ Completed | Failed ──────────────▶ Deleting ──▶ gone | DeleteFailed
    └────────▶ Stopping ──▶ Stopped | Failed ──────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from emulator.refusal import Refusal


@dataclass(frozen=True, slots=True)
class JobArn:
    """The parts of `arn:PARTITION:sagemaker:REGION:ACCOUNT:job/CATEGORY/NAME`."""

    partition: str
    region: str
    account: str
    category: str
    name: str

    @classmethod
    def parse(cls, text: str) -> JobArn:
        """Take apart an ARN that has already been checked against the service model's pattern.

        Raises ValueError if it is no job ARN.
        """
        try:
            arn, partition, service, region, account, resource = text.split(":")
            kind, category, name = resource.split("/")
        except ValueError:
            raise ValueError(f"not a job ARN: {text!r}") from None
        if (arn, service, kind) != ("arn", "sagemaker", "job") or "\0" in text:
            raise ValueError(f"not a job ARN: {text!r}")
        return cls(partition, region, account, category, name)

    @classmethod
    def is_one(cls, text: str) -> bool:
        """Whether an ARN is a job's."""
        try:
            cls.parse(text)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"arn:{self.partition}:sagemaker:{self.region}:{self.account}:job/{self.category}/{self.name}"


class Category(StrEnum):
    """What a job does."""

    TRAINING = "AgentRFT"
    EVALUATION = "AgentRFTEvaluation"


class JobStatus(StrEnum):
    """Where a job stands."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    DELETING = "Deleting"
    DELETE_FAILED = "DeleteFailed"


class SecondaryStatus(StrEnum):
    """What a job is at, in detail; each belongs to one JobStatus."""

    STARTING = "Starting"
    DOWNLOADING = "Downloading"
    PENDING = "Pending"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    UPLOADING = "Uploading"
    RESTARTING = "Restarting"
    COMPLETED = "Completed"
    FAILED = "Failed"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    MAX_RUNTIME_EXCEEDED = "MaxRuntimeExceeded"
    INTERRUPTED = "Interrupted"
    DELETING = "Deleting"
    DELETE_FAILED = "DeleteFailed"

    @property
    def primary(self) -> JobStatus:
        """The status that it belongs to."""
        return _PRIMARY.get(self) or JobStatus(self.value)


_PRIMARY = {
    SecondaryStatus.STARTING: JobStatus.IN_PROGRESS,
    SecondaryStatus.DOWNLOADING: JobStatus.IN_PROGRESS,
    SecondaryStatus.PENDING: JobStatus.IN_PROGRESS,
    SecondaryStatus.TRAINING: JobStatus.IN_PROGRESS,
    SecondaryStatus.EVALUATING: JobStatus.IN_PROGRESS,
    SecondaryStatus.UPLOADING: JobStatus.IN_PROGRESS,
    SecondaryStatus.RESTARTING: JobStatus.IN_PROGRESS,
    # ASSUMED: as training jobs have it, a job that ran too long counts as stopped, and so does an interrupted one.
    SecondaryStatus.MAX_RUNTIME_EXCEEDED: JobStatus.STOPPED,
    SecondaryStatus.INTERRUPTED: JobStatus.STOPPED,
}

#: The statuses that a job may have after each; those that are not here stay as they are.
NEXT: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.IN_PROGRESS: frozenset(
        {JobStatus.IN_PROGRESS, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.STOPPING, JobStatus.STOPPED}
    ),
    JobStatus.STOPPING: frozenset({JobStatus.STOPPED, JobStatus.FAILED}),
    JobStatus.COMPLETED: frozenset({JobStatus.DELETING}),
    JobStatus.FAILED: frozenset({JobStatus.DELETING}),
    JobStatus.STOPPED: frozenset({JobStatus.DELETING}),
    JobStatus.DELETING: frozenset({JobStatus.DELETE_FAILED}),
    JobStatus.DELETE_FAILED: frozenset({JobStatus.DELETING}),
}

#: In which a job does something.
ACTIVE = frozenset({JobStatus.IN_PROGRESS, JobStatus.STOPPING})

#: Whose steps `DescribeJob` tells, at most; the service model's limit.
MAX_TRANSITIONS = 100


class JobError(Refusal):
    """A request does not fit a job."""


class JobBusy(JobError):
    """The job is under way."""


class TooManyTags(JobError):
    """A job would have more tags than it may."""


class InvalidMove(JobError):
    """The job's status does not allow what was asked for."""

    def __init__(self, job: Job, target: JobStatus) -> None:
        self.status = job.status
        # ASSUMED: the wording.
        super().__init__(f"The request was rejected because job {job.name} is {job.status}, and cannot become {target}")


@dataclass(frozen=True, slots=True)
class Transition:
    """A job was in this secondary status from `start` to `end`."""

    status: SecondaryStatus
    start: int
    end: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job of the control plane."""

    arn: str
    category: Category
    name: str
    role_arn: str
    schema_version: str
    document: str  #: JobConfigDocument as it was given
    created_at: int
    modified_at: int
    transitions: tuple[Transition, ...]  #: the last one is what it is at
    ended_at: int | None = None
    failure_reason: str | None = None
    output: Mapping[str, Any] = field(default_factory=dict)  #: ServiceOutput, which is added to the document
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def secondary_status(self) -> SecondaryStatus:
        """What it is at."""
        return self.transitions[-1].status

    @property
    def status(self) -> JobStatus:
        """Where it stands."""
        return self.secondary_status.primary


def move(job: Job, to: SecondaryStatus, now: int, message: str | None = None, *, reason: str | None = None) -> Job:
    """The job in another secondary status, or in the same with another message. `reason` says why it failed.

    Raises InvalidMove.
    """
    last = job.transitions[-1]
    if to.primary not in NEXT[job.status]:
        raise InvalidMove(job, to.primary)
    if to is last.status:
        told = (*job.transitions[:-1], replace(last, message=message))
    else:
        told = (*job.transitions[:-1], replace(last, end=now), Transition(to, now, message=message))
    is_over = to.primary not in ACTIVE and job.status in ACTIVE
    if is_over:
        told = (*told[:-1], replace(told[-1], end=now))
    # OBSERVED: a completed job has an empty FailureReason.
    return replace(
        job,
        transitions=told[-MAX_TRANSITIONS:],
        modified_at=now,
        ended_at=now if is_over else job.ended_at,
        failure_reason=reason if reason is not None else "" if to is SecondaryStatus.COMPLETED else job.failure_reason,
    )
