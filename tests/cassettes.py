"""Recording and replaying in tests: the same work done with a model server, and then with its cassette alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server

Result = TypeVar("Result")


@contextmanager
def recording(cassette: Path, model: str, **changes: Any) -> Iterator[Server]:
    """An emulator that records what the model server answers."""
    with running_server(_settings(cassette, record=model, **changes)) as server:
        yield server


@contextmanager
def replaying(cassette: Path, **changes: Any) -> Iterator[Server]:
    """An emulator that has a cassette and no model server."""
    with running_server(_settings(cassette, **changes)) as server:
        yield server


def recorded_and_replayed(
    cassette: Path, model: str, work: Callable[[Server], Result], **changes: Any
) -> tuple[Result, Result]:
    """What comes of some work when its answers are recorded, and when they are replayed."""
    with recording(cassette, model, **changes) as server:
        recorded = work(server)
    with replaying(cassette, **changes) as server:
        return recorded, work(server)


def _settings(cassette: Path, **changes: Any) -> Settings:
    chosen: dict[str, Any] = {"port": 0, "durability": "memory", "shutdown_timeout": 5} | changes
    return Settings(model=f"cassette:{cassette}", **chosen)
