"""What most tests need: a running emulator."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from emulator.address import Address, DatabaseURL
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.postgresql import PostgreSQL, postgresql_server

# How long an example takes says nothing on a machine that is busy.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/arithmetic"


def pytest_configure() -> None:
    """Let processes that tests start hear Ctrl-C, also where this one was started not to, as a shell's `&` does."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def job_arn() -> str:
    """A job of this test."""
    return JOB_ARN


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where this test's server keeps its trajectories."""
    return tmp_path / "trajectories.db"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server. A test that stops or restarts it leaves it running."""
    with postgresql_server() as server:
        yield server


@pytest.fixture
def postgresql_database(postgresql: PostgreSQL) -> Iterator[DatabaseURL]:
    """An empty PostgreSQL database of this test's own."""
    url = postgresql.create_database()
    yield DatabaseURL(url)
    postgresql.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> Address:
    """Where this test's server keeps its trajectories: in a file, then in PostgreSQL; `spelled` gives the setting."""
    name = {"sqlite": "database", "postgresql": "postgresql_database"}[request.param]
    address: Address = request.getfixturevalue(name)
    return address


@pytest.fixture
def server(database: Path) -> Iterator[Server]:
    """A running emulator with the scripted model and a database of its own."""
    with running_server(Settings(port=0, database=str(database))) as server:
        yield server
