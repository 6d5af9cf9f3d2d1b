"""Columns that several formats have."""

from __future__ import annotations

import json
from typing import Any

from emulator.export.rollouts import Rollout
from emulator.export.shape import Field, Many, Shape

TRAJECTORY: Shape = {
    "schema": Field("text", "Name and version of this schema."),
    "job_arn": Field("text", "The job."),
    "trajectory_id": Field("text", "The trajectory."),
    "group": Field("text", "What rollouts of one prompt share; null if nobody said.", nullable=True),
    "instance": Field("json", "The dataset's row that the rollout was dispatched with, or null.", nullable=True),
    "eligible": Field("boolean", "Whether a trainer may use it: completed as ready, and its reward received."),
    "reward": Field("number", "The sum of `rewards`; null if none came.", nullable=True),
    "rewards": Field(Many("number"), "The rewards as they came: one, or one for each completed turn.", nullable=True),
}

MISSING = Field("json", "What could not be given, by name, and why; an empty object if nothing is missing.")


def trajectory_columns(schema: str, rollout: Rollout) -> dict[str, Any]:
    """What `TRAJECTORY` says."""
    record = rollout.record
    return {
        "schema": schema,
        "job_arn": record.job_arn,
        "trajectory_id": record.trajectory_id,
        "group": record.group,
        "instance": None if record.instance is None else json.loads(record.instance),
        "eligible": record.eligible,
        "reward": rollout.reward,
        "rewards": record.rewards,
    }
