"""What the tests of exports share: an emulator with rollouts of every kind, which no test changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from emulator.cli import main
from emulator.settings import Settings
from emulator.testing import running_server
from tests.export.rollouts import roll_out_every_kind


@dataclass(frozen=True)
class Captured:
    """A running emulator, and the file that it has open."""

    url: str
    database: Path
    client: httpx2.Client

    def get(self, **parameters: object) -> httpx2.Response:
        """`GET /_emulator/export`."""
        return self.client.get("/_emulator/export", params={name: str(v) for name, v in parameters.items()})

    def rows(self, **parameters: object) -> list[dict[str, Any]]:
        """Its rows, as JSON Lines."""
        answer = self.get(**parameters)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def of(self, trajectory_id: str, **parameters: object) -> list[dict[str, Any]]:
        """The rows of one trajectory."""
        return self.rows(trajectory=trajectory_id, **parameters)

    def write(self, path: Path, *options: str) -> Path:
        """Have the command write a file."""
        assert main(["export", "--database", str(self.database), "--output", str(path), *options]) == 0
        return path


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    """Rollouts of every kind."""
    database = tmp_path_factory.mktemp("export") / "trajectories.db"
    with (
        running_server(Settings(port=0, database=str(database))) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        roll_out_every_kind(server.url)
        yield Captured(server.url, database, client)
