"""The benchmark's C programs, compiled once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.native_programs import Load, ModelServerProcess, build, running_model_server


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with load and model_server."""
    if sys.platform != "linux":
        pytest.skip("bench/native is for Linux (epoll)")
    return build(tmp_path_factory.mktemp("native"))


@pytest.fixture
def model_server_process(programs: Path) -> Iterator[ModelServerProcess]:
    """A running model_server."""
    with running_model_server(programs) as server:
        yield server


@pytest.fixture
def load(programs: Path, tmp_path: Path) -> Load:
    """Runs load."""
    return Load(programs, tmp_path)
