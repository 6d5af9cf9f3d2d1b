"""What our own services work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from emulator.aws.disk import Disk
from emulator.aws.request import Reply, Request
from emulator.settings import ROLE_NAME

T = TypeVar("T")

#: Where MLflow is, `http://127.0.0.1:5000`; None if there is none.
MlflowUrl = Callable[[], Awaitable[str | None]]


class InThread(Protocol):
    """Runs a function in a thread of those for AWS."""

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T:
        """What the function returns."""


@dataclass(frozen=True, slots=True)
class Place:
    """Region and account, what is kept, and the ways to moto and MLflow."""

    region: str
    account: str
    aws_limits: bool
    disk: Disk
    in_thread: InThread
    ask: Callable[[Request], Awaitable[Reply]]  #: has moto serve a request; raises AWSError
    mlflow_url: MlflowUrl

    def arn(self, resource: str) -> str:
        """The ARN of something of SageMaker's: `mlflow-app/app-1`."""
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{resource}"

    @property
    def role_arn(self) -> str:
        """The ARN of the default role."""
        return f"arn:aws:iam::{self.account}:role/{ROLE_NAME}"
