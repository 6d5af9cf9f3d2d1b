"""What becomes of the policy after a step's rollouts, by `--policy-update`. The room for a trainer of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from emulator.job_config import JobConfig
from emulator.trainer.jobs.metrics import Metrics
from emulator.trainer.rollouts import RolloutResult


class PolicyUpdate(Protocol):
    """Changes the model that the next step samples from."""

    note: str  #: what a job's log, run and model packages say of it

    async def update(self, step: int, results: Sequence[RolloutResult], config: JobConfig) -> Metrics:
        """Learn from the rollouts of a step, from 1; what there is to measure of that. Raises JobFailed."""


class NoPolicyUpdate:
    """The `PolicyUpdate` that leaves the model as it is: no number pretends that something was learned."""

    note = "The policy was not updated (--policy-update none): every step sampled from the base model"

    async def update(self, step: int, results: Sequence[RolloutResult], config: JobConfig) -> Metrics:  # noqa: ARG002
        """As the protocol has it."""
        return {}


POLICY_UPDATES: dict[str, PolicyUpdate] = {"none": NoPolicyUpdate()}
