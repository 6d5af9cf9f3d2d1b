"""The document that asks an agent for a rollout, in the spellings that agents are written for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from emulator.trainer.rollouts import Row


class Spelling(StrEnum):
    """How a rollout request is spelled."""

    BOTH = "both"  #: one document that an agent of either kind can read
    DOCUMENTED = "documented"  #: as AWS's public samples have it
    SDK = "sdk"  #: as the SageMaker SDK's RolloutRequest has it


@dataclass(frozen=True, slots=True)
class InferenceParameters:
    """How the agent shall sample. The defaults are a real job's."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 4096


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a rollout belongs, and where its agent reaches the runtime."""

    job_arn: str
    trajectory_id: str
    endpoint: str
    region: str


def rollout_request(
    row: Row, to: Destination, inference: InferenceParameters, spelling: Spelling = Spelling.BOTH
) -> dict[str, Any]:
    """The document."""
    where = {"endpoint": to.endpoint, "region": to.region}
    # ASSUMED: agents do not mind what the other spelling adds: pydantic's models and dicts do not.
    documented = {
        "prompt": row.prompt,
        "metadata": {"jobArn": to.job_arn, "rolloutId": to.trajectory_id, **where},
        "inferenceParams": {
            "temperature": inference.temperature,
            "topP": inference.top_p,
            "maxTokens": inference.max_tokens,
        },
    }
    sdk = {
        "instance": dict(row.instance),
        "metadata": {"job_arn": to.job_arn, "trajectory_id": to.trajectory_id, **where},
        "inference_params": {
            "temperature": inference.temperature,
            "max_tokens": inference.max_tokens,
            "top_p": inference.top_p,
        },
    }
    match spelling:
        case Spelling.DOCUMENTED:
            return documented
        case Spelling.SDK:
            return sdk
    return {**documented, **sdk, "metadata": {**documented["metadata"], **sdk["metadata"]}}
