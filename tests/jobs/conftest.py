"""A server with jobs, and what they read and write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import boto3
import httpx2
import pytest
from botocore.config import Config

from emulator.address import Address
from emulator.settings import Settings
from emulator.testing import running_server
from tests.job_config import EVALUATION, TRAINING
from tests.jobs import agents
from tests.serving import Serving, serving
from tests.stored import spelled

ROLE = "arn:aws:iam::123456789012:role/service-role"
ENDED = ("Completed", "Failed", "Stopped")


class Reached(Protocol):
    """A server, in this process or another."""

    @property
    def url(self) -> str:
        """Where it is."""


@dataclass(frozen=True)
class AWS:
    """A server, by its clients."""

    server: Reached

    def client(self, service: str) -> Any:
        """A client of boto3."""
        return boto3.client(
            service,
            endpoint_url=self.server.url,
            region_name="us-west-2",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def prepare(self, prompts: int = 5) -> None:
        """Bucket, data and groups, as a user has them."""
        s3, sagemaker = self.client("s3"), self.client("sagemaker")
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        rows = [json.dumps({"prompt": f"What is {number} + 2?", "answer": number + 2}) for number in range(prompts)]
        for key in ("train.jsonl", "val/val.jsonl", "eval.jsonl"):
            s3.put_object(Bucket="bucket", Key=key, Body="\n".join(rows).encode())
        for group in ("out", "checkpoints"):
            sagemaker.create_model_package_group(ModelPackageGroupName=group)

    def create(self, document: dict[str, Any], name: str = "j", category: str = "AgentRFT", client: Any = None) -> str:
        """CreateJob; the ARN."""
        arn: str = (client or self.client("sagemaker")).create_job(
            JobName=name,
            RoleArn=ROLE,
            JobCategory=category,
            JobConfigSchemaVersion="1.0.0",
            JobConfigDocument=json.dumps(document),
        )["JobArn"]
        return arn

    def describe(self, name: str = "j", category: str = "AgentRFT") -> dict[str, Any]:
        """DescribeJob, with its document read."""
        job: dict[str, Any] = self.client("sagemaker").describe_job(JobName=name, JobCategory=category)
        del job["ResponseMetadata"]
        return job | {"Output": json.loads(job["JobConfigDocument"]).get("ServiceOutput", {})}

    def until(
        self,
        is_so: Callable[[dict[str, Any]], bool],
        name: str = "j",
        category: str = "AgentRFT",
        within: float = 60,
    ) -> dict[str, Any]:
        """The job when it is so; it has so many seconds."""
        deadline = time.monotonic() + within
        while not is_so(job := self.describe(name, category)):
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def ended(self, name: str = "j", category: str = "AgentRFT", within: float = 60) -> dict[str, Any]:
        """The job when it is over."""
        return self.until(lambda job: job["JobStatus"] in ENDED, name, category, within)

    def log(self, name: str = "j", category: str = "AgentRFT") -> list[str]:
        """The lines of a job's log."""
        logs, group = self.client("logs"), f"/aws/sagemaker/Job/{category}"
        (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)[
            "events"
        ]
        return [event["message"] for event in events]


def trajectories(aws: AWS, arn: str) -> list[dict[str, Any]]:
    """The trajectories of a job."""
    answer = httpx2.get(f"{aws.server.url}/_emulator/trajectories", params={"job": arn, "limit": 500})
    listed = answer.json()["trajectories"]
    return [
        httpx2.get(f"{aws.server.url}/_emulator/trajectories/{arn}/{each['trajectory_id']}").json() for each in listed
    ]


@dataclass(frozen=True)
class AWSToKill(AWS):
    """A server in a process of its own, by its clients."""

    server: Serving


@contextmanager
def aws_with(agent: str, **settings: Any) -> Iterator[AWS]:
    """A server whose jobs are done by a function of `agents`."""
    kept = {} if "database" in settings else {"durability": "memory"}
    settings = {**kept, "agents": (f"python:tests.jobs.agents:{agent}",), **settings}
    with running_server(Settings(port=0, **settings)) as server:
        yield AWS(server)


@pytest.fixture
def kept(any_database: Address) -> dict[str, Any]:
    """Settings: where jobs are kept, in a file, then in PostgreSQL."""
    return {"database": spelled(any_database)}


@contextmanager
def aws_to_kill(database: Path, agent: str) -> Iterator[AWSToKill]:
    """A server in a process of its own, whose jobs are done by a function of `agents`."""
    options = ("--agent", f"python:tests.jobs.agents:{agent}", "--mlflow", "off")
    with serving(database, "scripted", log=database.with_name("server.log"), options=options) as server:
        yield AWSToKill(server)


@pytest.fixture(autouse=True)
def _agents_go() -> Iterator[None]:
    agents.GO.clear()
    yield
    agents.GO.set()


def training(*, validation: bool = False, **hyperparameters: object) -> dict[str, Any]:
    """A small training job."""
    document: dict[str, Any] = json.loads(json.dumps(TRAINING))
    if not validation:
        document["InputDataConfig"].pop()
    given = {"global_batch_size": 2, "group_size": 2, "max_steps": 2, "rollout_timeout": 20, **hyperparameters}
    document["TrainingConfig"]["HyperParameters"] = {name: str(value) for name, value in given.items()}
    return document


def evaluation(**hyperparameters: object) -> dict[str, Any]:
    """A small evaluation job."""
    document: dict[str, Any] = json.loads(json.dumps(EVALUATION))
    given = {"eval_group_size": 2, "rollout_timeout": 20, **hyperparameters}
    document["EvaluationConfig"]["HyperParameters"] = {name: str(value) for name, value in given.items()}
    return document
