"""What most tests need: a running emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server

JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/arithmetic"


@pytest.fixture
def job_arn() -> str:
    """A job of this test."""
    return JOB_ARN


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where this test's server keeps its trajectories."""
    return tmp_path / "trajectories.db"


@pytest.fixture
def server(database: Path) -> Iterator[Server]:
    """A running emulator with the scripted model and a database of its own."""
    with running_server(Settings(port=0, database=str(database))) as server:
        yield server
