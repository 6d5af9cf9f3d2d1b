"""One emulator a database and model server: the embedded one in the quick run, the real vLLM under `make test-vllm`."""

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

from emulator.address import Address, DatabaseURL
from emulator.documents import parse_time
from emulator.settings import Settings
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.testing import running_server
from emulator.trajectory import Status, TurnStatus
from tests.postgresql import PostgreSQL
from tests.stored import spelled, stored

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
    database: Address | None  #: None: in memory, where only the emulator itself can look
    management: httpx2.Client
    job_arn: str = JOB_ARN

    def headers(self, trajectory_id: str) -> dict[str, str]:
        """Name a trajectory as OpenAI-style clients do."""
        return {"X-Amzn-SageMaker-Job-Arn": self.job_arn, "X-Amzn-SageMaker-Trajectory-Id": trajectory_id}

    def document(self, trajectory_id: str) -> dict[str, Any]:
        """A trajectory, as `/_emulator/` shows it."""
        answer = self.management.get(f"/trajectories/{self.job_arn}/{trajectory_id}")
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def trajectory(self, trajectory_id: str) -> TrajectoryRecord:
        """A trajectory, as it is stored."""
        if self.database is not None:
            return stored(self.database, trajectory_id, self.job_arn)[0]
        document = self.document(trajectory_id)
        return TrajectoryRecord(
            id=0,
            job_arn=document["job_arn"],
            trajectory_id=document["trajectory_id"],
            status=Status(document["status"]),
            completion=None if document["completion"] is None else Status(document["completion"]),
            rewards=document["rewards"],
            created_at=parse_time(document["created_at"]),
            completed_at=read_time(document["completed_at"]),
            rewarded_at=read_time(document["rewarded_at"]),
            turns=sum(turn["status"] == "completed" for turn in document["turns"]),
        )

    def turns(self, trajectory_id: str) -> list[TurnRecord]:
        """Its turns, as they are stored."""
        if self.database is not None:
            return stored(self.database, trajectory_id, self.job_arn)[1]
        return [self._turn(trajectory_id, turn) for turn in self.document(trajectory_id)["turns"]]

    def _turn(self, trajectory_id: str, document: dict[str, Any]) -> TurnRecord:
        turn = f"/turns/{self.job_arn}/{trajectory_id}/{document['number']}"
        return TurnRecord(
            number=document["number"],
            status=TurnStatus(document["status"]),
            path=document["path"],
            http_status=document["http_status"],
            content_type=document["content_type"],
            error=document["error"],
            arrived_at=parse_time(document["arrived_at"]),
            first_byte_at=read_time(document["first_byte_at"]),
            ended_at=parse_time(document["ended_at"]),
            request=self.management.get(f"{turn}/request").content,
            response=self.management.get(f"{turn}/response").content,
        )


def read_time(text: str | None) -> int | None:
    """A time of a document."""
    return None if text is None else parse_time(text)


def vllm_settings() -> dict[str, str]:
    """The settings that choose the vLLM which `make test-vllm` built."""
    try:
        python = os.environ["TEST_VLLM_PYTHON"]
        model = os.environ["TEST_VLLM_MODEL"]
    except KeyError as error:
        pytest.fail(f"{error} is not set: run `make test-vllm`; the quick run is `pytest -m 'not vllm'`")
    return {"model": f"vllm:'{model}' {VLLM_ARGUMENTS}", "vllm_python": python}


#: Every database with the embedded model, and the real one with a file.
KINDS = ["full", "memory", "postgresql", pytest.param("vllm", marks=pytest.mark.vllm)]


@pytest.fixture(scope="session", params=KINDS)
def emulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator in front of a model server that is ready."""
    folder = tmp_path_factory.mktemp("contract")
    database: Address | None = folder / "trajectories.db"
    choice: dict[str, Any] = {"vllm_log": str(folder / "vllm.log")}
    match request.param:
        case "memory":
            database = None
            choice |= {"durability": "memory"}
        case "postgresql":
            server: PostgreSQL = request.getfixturevalue("postgresql")
            database = DatabaseURL(server.create_database())
        case "vllm":
            choice |= vllm_settings()
    if database is not None:
        choice |= {"database": spelled(database)}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with (
            running_server(Settings(port=0, **choice)) as emulator,
            httpx2.Client(base_url=f"{emulator.url}/_emulator") as management,
        ):
            wait_until_ready(management, folder / "vllm.log")
            yield Emulator(emulator.url, database, management)


def wait_until_ready(management: httpx2.Client, log: Path) -> None:
    """Until `/_emulator/health` says that the model server is ready."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while (answer := management.get("/health")).status_code != 200:
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
