"""What the tests of the examples need: an emulator, and the examples that serve HTTP, started once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.clients.environments import client_variables
from tests.examples.agents import serving


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Start an example that serves HTTP, unless it runs already; its URL."""
    running: dict[str, str] = {}
    folder = tmp_path_factory.mktemp("examples")
    with ExitStack() as exits:

        def start(name: str) -> str:
            if name not in running:
                running[name] = exits.enter_context(serving(name, folder))
            return running[name]

        yield start


@pytest.fixture
def client_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and region of a client, for examples that run in this process."""
    for name, value in client_variables().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
