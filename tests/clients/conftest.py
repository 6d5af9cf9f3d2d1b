"""No client here reaches anything but this machine, or uses the credentials of whoever runs the tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.environments import client_variables
from tests.clients.look_ups import loopback_only
from tests.clients.rollouts import KEY_PAIR


@pytest.fixture(autouse=True)
def this_machine_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give this process a client's variables; a client that looks up another host fails its test."""
    variables = client_variables()
    for name in os.environ.keys() - variables.keys():
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", loopback_only(refused))
    yield
    assert not refused


@pytest.fixture
def strict_server(database: Path) -> Iterator[Server]:
    """A running emulator that verifies signatures and tokens, for one account's jobs."""
    settings = Settings(port=0, database=str(database), auth="strict", key_pairs=(KEY_PAIR,), account="123456789012")
    with running_server(settings) as server:
        yield server
