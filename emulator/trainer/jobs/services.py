"""What a job needs beside its rollouts: where its files are, who hears of it, which agent an ARN names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from emulator.job import Job
from emulator.job_config import JobConfig
from emulator.store import Store
from emulator.trainer.agents import Agent
from emulator.trainer.jobs.policy import PolicyUpdate
from emulator.trainer.rollouts import RolloutResult, Row
from emulator.trainer.runtime import LocalRuntime

#: Writes a line into a job's log.
Say = Callable[[str], Awaitable[None]]


class JobFailed(Exception):
    """A job cannot go on; the message is its FailureReason."""


class Cloud(Protocol):
    """What a job does with the rest of AWS. Every function may raise JobFailed."""

    async def read_dataset(self, uri: str) -> list[Row]:
        """The rows of an S3 URI, or of a data set's ARN."""

    async def check_outputs(self, config: JobConfig) -> None:
        """Are bucket and model package groups there? To find that out at the end would cost a whole job."""

    async def put(self, uri: str, content: bytes) -> None:
        """Write an object."""

    async def log(self, group: str, stream: str, lines: Sequence[tuple[int, str]]) -> None:
        """Append lines to a log stream, each with its time in microseconds; groups and streams are made as needed."""

    async def create_model_package(self, group_arn: str, *, model_uri: str, config: JobConfig, note: str) -> str:
        """Make a version in a model package group; its ARN. `note` says what it is."""


class Run(Protocol):
    """A run in MLflow. Never raises: a job goes on without its metrics, and its log says so."""

    details: Mapping[str, str]  #: MlflowDetails of the job's ServiceOutput; empty where there is no MLflow

    async def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of a step."""

    async def log_rollouts(self, part: str, results: Sequence[RolloutResult]) -> None:
        """One trace a rollout."""

    async def end(self, status: str) -> None:
        """FINISHED, FAILED or KILLED."""


class Tracker(Protocol):
    """MLflow, or nobody."""

    async def begin(self, job: Job, config: JobConfig, parameters: Mapping[str, Any], say: Say) -> Run:
        """Begin a run for a job, or go on with the one that its ServiceOutput names. Never raises, as `Run`."""

    def known(self, job: Job, say: Say) -> Run | None:
        """The run that a job's ServiceOutput names."""

    async def aclose(self) -> None:
        """No run has more to tell."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that jobs work with."""

    store: Store
    runtime: LocalRuntime
    cloud: Cloud
    tracker: Tracker
    policy: PolicyUpdate
    #: By its ARN, its qualifier and the time-out of a rollout in seconds; raises JobFailed.
    find_agent: Callable[[str, str | None, float], Awaitable[Agent]]
    export: Callable[[Job], Awaitable[bytes]]  #: the trajectories of a job, in the project's own format
    rate: float | None  #: of new rollouts, a second; None: as many as there can be
