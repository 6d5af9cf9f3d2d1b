"""Scripts of the SDK's users, run beside an emulator that has the agents, and what they left in it."""

from __future__ import annotations

import json
import subprocess
import sys
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
from tests.sdk import ROOT
from tests.sdk.guarded import guarded, left
from tests.sdk.loopback import enclosed, place

HERE = Path(__file__).parent

#: Seconds that MLflow gets to start, when it is first asked.
MLFLOW_START = 120


@pytest.fixture(autouse=True, params=[place()])
def _place() -> None:
    """Says in each test's name what keeps its programs from the network."""


@dataclass(frozen=True)
class Run:
    """A script that has ended, and where the server is that it talked to."""

    url: str  #: where the server is
    report: Mapping[str, Any]
    left: Sequence[str]  #: other hosts that it tried to reach

    def get(self, path: str, **parameters: str | int) -> Any:
        """A document of the emulator's own API."""
        answer = httpx2.get(f"{self.url}/_emulator/{path}", params=parameters, timeout=MLFLOW_START)
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
def ran(script: str, folder: Path, *options: str, beside: str | None = None, mlflow: bool = True) -> Iterator[Run]:
    """A script of this folder after it has ended under `job-runtime-local run`, and a server that has what it left.

    `beside`: an example that serves HTTP meanwhile, at APP.
    """
    report, database = folder / "report.json", folder / "emulator.db"
    python = str(program("sagemaker", "python"))
    model = f"scripted:{ROOT}/examples/arithmetic_model.yaml"
    found = ["--mlflow-python", python] if mlflow else ["--mlflow", "off"]
    command = [sys.executable, "-m", "emulator", "run", "--database", str(database), "--model", model, *found, *options]
    command += ["--", python, str(HERE / script), str(report)]
    if beside is not None:
        command = [sys.executable, "-m", "tests.sdk.with_app", beside, str(folder), *command]
    done = subprocess.run(
        enclosed(command), cwd=folder, env=variables(folder),
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    assert "refused" not in done.stderr, done.stderr[-8000:]
    settings = Settings(port=0, database=str(database), model=model, mlflow_python=python)
    with running_server(settings) as server:
        yield Run(server.url, json.loads(report.read_text()), left(folder))


def variables(folder: Path) -> dict[str, str]:
    """The environment of a command in a folder: the guard, and nothing of AWS, neither keys nor a region."""
    found = {name: value for name, value in client_variables().items() if not name.startswith("AWS_")}
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # some of these packages take 20 s to compile
    return found | guarded(folder) | {"HOME": str(folder / "home")}
