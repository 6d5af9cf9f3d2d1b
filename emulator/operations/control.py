"""What the operations of the control plane work with."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from emulator.job import Category, Job, JobArn, JobBusy, JobError
from emulator.pipeline import Execution
from emulator.protocol.errors import (
    AWSError,
    InternalServiceError,
    ResourceInUse,
    ResourceLimitExceeded,
    ResourceNotFound,
    ValidationException,
)
from emulator.store import Store, StoreError
from emulator.store.jobs import JobExists, JobNotFound, TooManyJobs, find_job
from emulator.store.pipelines import ExecutionNotFound

T = TypeVar("T")

#: What a page holds when the request does not say.
DEFAULT_PAGE = 10


class JobRunner(Protocol):
    """Whoever does what jobs are told to do."""

    def begin(self, job: Job) -> None:
        """Start on a job that was just stored."""

    def stop(self, arn: str) -> None:
        """Have a job under way end soon; its status says Stopping already."""


class PipelineRunner(Protocol):
    """Whoever does what pipelines are told to do."""

    async def find_pipeline(self, name: str) -> tuple[str, str] | None:
        """A pipeline's ARN and definition. Raises AWSError."""

    def begin_execution(self, execution: Execution) -> None:
        """Start on an execution that was just stored."""

    def stop_execution(self, arn: str) -> None:
        """Have an execution end soon; its status says Stopping already."""


@dataclass(frozen=True, slots=True)
class Control:
    """The store, who runs jobs and pipelines, and where this control plane is."""

    store: Store
    runner: JobRunner
    pipelines: PipelineRunner
    region: str
    account: str
    aws_limits: bool  #: whether AWS's own quotas and ranges hold

    def arn(self, category: str, name: str) -> str:
        """The ARN of a job of ours."""
        return str(JobArn("aws", self.region, self.account, category, name))

    async def find(self, category: str, name: str) -> Job:
        """Raises ResourceNotFound, InternalServiceError."""
        return await self.find_by_arn(self.arn(category, name))

    async def find_by_arn(self, arn: str) -> Job:
        """Raises ResourceNotFound, InternalServiceError."""
        try:
            job = await self.store.read_patiently(find_job, arn)
        except StoreError as error:
            raise control_error(error) from error
        if job is None:
            raise control_error(JobNotFound(f"There is no job {arn}"))
        return job


#: What `control_error` says in the words of AWS.
CONTROL_ERRORS = (JobError, StoreError)

_ERRORS: dict[type[Exception], type[AWSError]] = {
    JobExists: ResourceInUse,
    JobBusy: ResourceInUse,
    JobNotFound: ResourceNotFound,
    ExecutionNotFound: ResourceNotFound,
    TooManyJobs: ResourceLimitExceeded,
    StoreError: InternalServiceError,
}


def control_error(error: Exception) -> AWSError:
    """What the domain or the store raised, in the words of AWS; a status that does not allow something is not valid."""
    return _ERRORS.get(type(error), ValidationException)(str(error))


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Do what changes something, and what follows from it, although the client may leave. Raises AWSError."""
    try:
        return await asyncio.shield(work)
    except CONTROL_ERRORS as error:
        raise control_error(error) from error


def read_category(text: str) -> Category:
    """A category that the service model has let through. Raises ValidationException for one that we do not emulate."""
    try:
        return Category(text)
    except ValueError:
        emulated = ", ".join(Category)
        raise ValidationException(f"Jobs of category {text} are not emulated; there are {emulated}") from None


def page_token(question: Mapping[str, Any], place: Sequence[Any]) -> str:
    """A NextToken: where a page ended, and the question that it belongs to."""
    return base64.urlsafe_b64encode(json.dumps([question, list(place)]).encode()).decode()


def read_page_token(question: Mapping[str, Any], token: str, *kinds: type) -> tuple[Any, ...]:
    """Where the page before ended, whose parts are of these kinds: texts and whole numbers.

    Raises ValidationException for a token that is none, or of another question.
    """
    try:
        asked, place = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        asked = place = None
    if asked != question or not isinstance(place, list) or not _is_place(place, kinds):
        raise ValidationException("NextToken is not one that was given for this request")
    return tuple(place)


def _is_place(place: list[Any], kinds: tuple[type, ...]) -> bool:
    """Whether a database can be asked for it: one that somebody has made up may hold anything."""
    return [type(part) for part in place] == list(kinds) and all(
        part.isascii() and "\0" not in part if isinstance(part, str) else abs(part) < 2**63 for part in place
    )
