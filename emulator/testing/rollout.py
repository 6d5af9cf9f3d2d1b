"""A rollout as its trainer would send it to an agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: What an agent of a test shows as its key; a lenient server takes any.
API_KEY = "local"


@dataclass(frozen=True, slots=True)
class Rollout:
    """What an agent is given, in the forms in which agents take it."""

    job_arn: str
    trajectory_id: str
    endpoint: str  #: where the emulator listens
    region: str
    instance: Mapping[str, Any] | None = None  #: the dataset's row
    group: str | None = None  #: what rollouts of one prompt share

    @property
    def keywords(self) -> dict[str, str]:
        """For boto3: `client.sample(**rollout.keywords, Body=…)`."""
        return {"JobArn": self.job_arn, "TrajectoryId": self.trajectory_id}

    @property
    def headers(self) -> dict[str, str]:
        """What names the rollout on the OpenAI-style paths."""
        return {"X-Amzn-SageMaker-Job-Arn": self.job_arn, "X-Amzn-SageMaker-Trajectory-Id": self.trajectory_id}

    @property
    def base_url(self) -> str:
        """The OpenAI-style paths."""
        return f"{self.endpoint}/v1"

    @property
    def openai(self) -> dict[str, Any]:
        """For the OpenAI client, and those that take the same: `OpenAI(**rollout.openai)`."""
        return {"base_url": self.base_url, "api_key": API_KEY, "default_headers": self.headers}

    @property
    def metadata(self) -> dict[str, str]:
        """The request's metadata in both spellings, the documented one and the SDK's."""
        return {
            "jobArn": self.job_arn,
            "rolloutId": self.trajectory_id,
            "job_arn": self.job_arn,
            "trajectory_id": self.trajectory_id,
            "endpoint": self.endpoint,
            "region": self.region,
        }

    @property
    def payload(self) -> dict[str, Any]:
        """The whole request in both spellings; the prompt is the row's column `prompt`, else its first."""
        instance = dict(self.instance or {})
        prompt = instance.get("prompt", next(iter(instance.values()), None))
        return {"prompt": prompt, "instance": instance, "metadata": self.metadata}
