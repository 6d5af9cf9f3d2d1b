"""No MLflow: metrics are in the job's log alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emulator.job import Job
from emulator.job_config import JobConfig
from emulator.trainer.jobs.services import Run, Say
from emulator.trainer.rollouts import RolloutResult


class UntrackedRun:
    """A `Run` of which nobody hears."""

    details: Mapping[str, str] = {}

    async def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """As the protocol has it."""

    async def log_rollouts(self, part: str, results: Sequence[RolloutResult]) -> None:
        """As the protocol has it."""

    async def end(self, status: str) -> None:
        """As the protocol has it."""


class Untracked:
    """A `Tracker` without an MLflow."""

    async def begin(self, job: Job, config: JobConfig, parameters: Mapping[str, Any], say: Say) -> Run:  # noqa: ARG002
        """As the protocol has it."""
        return UntrackedRun()

    def known(self, job: Job, say: Say) -> None:
        """As the protocol has it."""

    async def aclose(self) -> None:
        """As the protocol has it."""
