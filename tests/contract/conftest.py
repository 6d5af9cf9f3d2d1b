"""One emulator a model server: the embedded one in the quick run, the real vLLM under `make test-vllm`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest
from botocore.config import Config
from openai import OpenAI

from emulator.settings import Settings
from emulator.store import queries
from emulator.store.database import read_engine
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.testing import running_server

JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/contract"

#: What this small model needs on a processor, and what lets it call tools.
VLLM_ARGUMENTS = (
    "--dtype bfloat16 --max-model-len 2048 --enforce-eager --enable-auto-tool-choice --tool-call-parser hermes"
)

#: Seconds until vLLM must be healthy.
PATIENCE = 300


@dataclass(frozen=True)
class Emulator:
    """A running emulator, and what it has stored."""

    url: str
    database: Path
    job_arn: str = JOB_ARN

    def headers(self, trajectory_id: str) -> dict[str, str]:
        """Name a trajectory as OpenAI-style clients do."""
        return {"X-Amzn-SageMaker-Job-Arn": self.job_arn, "X-Amzn-SageMaker-Trajectory-Id": trajectory_id}

    def trajectory(self, trajectory_id: str) -> TrajectoryRecord:
        """A trajectory, as it is stored."""
        with read_engine(self.database).connect() as connection:
            (record,) = queries.find_trajectories(connection, trajectory_id, self.job_arn)
        return record

    def turns(self, trajectory_id: str) -> list[TurnRecord]:
        """Its turns, as they are stored."""
        with read_engine(self.database).connect() as connection:
            (record,) = queries.find_trajectories(connection, trajectory_id, self.job_arn)
            return queries.turns_of(connection, record)


def vllm_settings() -> dict[str, str]:
    """The settings that choose the vLLM which `make test-vllm` built."""
    try:
        python = os.environ["TEST_VLLM_PYTHON"]
        model = os.environ["TEST_VLLM_MODEL"]
    except KeyError as error:
        pytest.fail(f"{error} is not set: run `make test-vllm`; the quick run is `pytest -m 'not vllm'`")
    return {"model": f"vllm:'{model}' {VLLM_ARGUMENTS}", "vllm_python": python}


@pytest.fixture(scope="session", params=["scripted", pytest.param("vllm", marks=pytest.mark.vllm)])
def emulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator in front of a model server that is ready."""
    folder = tmp_path_factory.mktemp("contract")
    database = folder / "trajectories.db"
    choice: dict[str, Any] = {"model": "scripted"} if request.param == "scripted" else vllm_settings()
    settings = Settings(port=0, database=str(database), vllm_log=str(folder / "vllm.log"), **choice)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with running_server(settings) as server:
            wait_until_ready(server.url, folder / "vllm.log")
            yield Emulator(server.url, database)


def wait_until_ready(url: str, log: Path) -> None:
    """Until `/_emulator/health` says that the model server is ready."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while (answer := httpx2.get(f"{url}/_emulator/health")).status_code != 200:
        assert answer.status_code == 503
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        pause.wait(0.25)


@pytest.fixture
def runtime(emulator: Emulator) -> Iterator[Any]:
    """A boto3 client that tries each request once."""
    client = boto3.client(
        "sagemakerjobruntime",
        endpoint_url=emulator.url,
        region_name="us-west-2",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=120),
    )
    yield client
    client.close()


@pytest.fixture
def openai(emulator: Emulator) -> Iterator[Callable[[str], OpenAI]]:
    """An OpenAI client for a trajectory."""
    with OpenAI(base_url=f"{emulator.url}/v1", api_key="local", max_retries=0) as client:
        yield lambda trajectory_id: client.with_options(default_headers=emulator.headers(trajectory_id))


_numbers = count()


@pytest.fixture
def trajectory_id(request: pytest.FixtureRequest) -> str:
    """A trajectory of this test's own."""
    return f"{request.node.originalname}-{next(_numbers)}"
