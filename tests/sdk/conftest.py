"""Scripts of the SDK's users, run beside an emulator that has the agents, and what they left in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.environments import client_variables, program
from tests.clients.rollouts import REGION
from tests.sdk import agents

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

#: The SDK's own settings: no telemetry, and a bucket that it need not ask STS for at an address that it has built in.
_CONFIG = """\
SchemaVersion: '1.0'
SageMaker:
  PythonSDK:
    Modules:
      TelemetryOptOut: true
      Session:
        DefaultS3Bucket: sagemaker-us-west-2-123456789012
"""


@pytest.fixture(scope="module", autouse=True)
def _credentials() -> Iterator[None]:
    """Functions of this process call the runtime with them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in client_variables().items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        yield


@dataclass(frozen=True)
class Run:
    """A script that has ended, and where the server is that it talked to."""

    url: str  #: where the server is
    report: Mapping[str, Any]
    left: Sequence[str]  #: other hosts that it tried to reach

    def get(self, path: str, **parameters: str | int) -> Any:
        """A document of the emulator's own API."""
        answer = httpx2.get(f"{self.url}/_emulator/{path}", params=parameters)
        answer.raise_for_status()
        return answer.json()

    def trajectories(self, job_arn: str) -> list[dict[str, Any]]:
        """The trajectories of a job, with their turns."""
        listed = self.get("trajectories", job=job_arn, limit=500)["trajectories"]
        return [self.get(f"trajectories/{job_arn}/{each['trajectory_id']}") for each in listed]

    def client(self, service: str) -> Any:
        """A client of boto3."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )

    def metrics(self, job_name: str) -> dict[int, dict[str, float]]:
        """What the log of a training job says of each step."""
        logs, group = self.client("logs"), "/aws/sagemaker/Job/AgentRFT"
        (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{job_name}/")["logStreams"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True)
        lines = [event["message"] for event in events["events"]]
        steps = [json.loads(line) for line in lines if line.startswith("{")]
        return {step.pop("step"): step for step in steps}


@contextmanager
def ran(script: str, folder: Path, **settings: Any) -> Iterator[Run]:
    """A script of this folder, after it has ended, and while its server still runs."""
    report, notes = folder / "report.json", folder / "left.json"
    given: dict[str, Any] = {
        "port": 0,
        "database": str(folder / "emulator.db"),
        "model": f"scripted:{ROOT}/examples/arithmetic_model.yaml",
    }
    with running_server(Settings(**(given | settings))) as server:
        try:
            done = subprocess.run(
                command(script, notes, report), cwd=folder, env=variables(server.url, folder),
                capture_output=True, text=True, check=False, timeout=280,
            )  # fmt: skip
        finally:
            agents.GO.set()
        assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
        yield Run(server.url, json.loads(report.read_text()), json.loads(notes.read_text()))


def command(script: str, notes: Path, report: Path) -> list[str]:
    """What runs a script of this folder under the guard."""
    return [str(program("sagemaker", "python")), "-m", "tests.sdk.guarded", str(notes), str(HERE / script), str(report)]


def variables(url: str, folder: Path) -> dict[str, str]:
    """The environment of a script whose AWS is at `url`. Writes the SDK's configuration file."""
    config = folder / "config.yaml"
    config.write_text(_CONFIG)
    found = client_variables() | {
        "PYTHONPATH": str(ROOT),
        "AWS_ENDPOINT_URL": url,
        "RFT_RUNTIME_ENDPOINT": url,
        "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": url,
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(config),
    }
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # some of these packages take 20 s to compile
    return found
