"""One emulator for all tests of a module, whose faults are cleared before each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import botocore.retries.bucket
import pytest

from emulator.faults import Fault, Faults
from emulator.server import Server
from emulator.settings import Settings
from emulator.store.queries import TurnRecord
from emulator.testing import running_server
from tests.clients.aws import runtime_client
from tests.clients.rollouts import StoredRollout, stored_rollout
from tests.conftest import JOB_ARN
from tests.stored import eventually_stored, stored_turns

ids = count()


@dataclass(frozen=True)
class Rollout:
    """A rollout of this test's own: what to call it by, and what is stored of it."""

    server: Server
    client: Any  #: of boto3, which tries once
    key: dict[str, str]

    @property
    def faults(self) -> Faults:
        return self.server.app.faults

    @property
    def trajectory_id(self) -> str:
        return self.key["TrajectoryId"]

    @property
    def database(self) -> Path:
        return Path(self.server.app.settings.database)

    def suffers(self, fault: Fault) -> None:
        """Have the next call that the fault means suffer it, and no other."""
        self.faults.add(fault)

    def turns(self) -> list[TurnRecord]:
        return stored_turns(self.database, self.trajectory_id)

    def eventual_turns(self, number: int) -> list[str]:
        """The statuses of the turns, when there are so many: of those whose clients are not there to wait for them."""
        found = eventually_stored(self.database, self.trajectory_id, number) if number else self.turns()
        return [str(turn.status) for turn in found]

    def stored(self) -> StoredRollout:
        return stored_rollout(self.database, self.trajectory_id)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = tmp_path_factory.mktemp("faults") / "trajectories.db"
    settings = Settings(
        port=0, database=str(database), durability="normal", model_idle_timeout=0.2, model_answer_timeout=0.2
    )
    with running_server(settings) as server:
        yield server


@pytest.fixture
def rollout(emulator: Server) -> Iterator[Rollout]:
    emulator.app.faults.clear()
    with runtime_client(emulator.url) as client:
        yield Rollout(emulator, client, {"JobArn": JOB_ARN, "TrajectoryId": f"t-{next(ids)}"})
    emulator.app.faults.clear()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that boto3 would have waited between its attempts: it does not, lest the test takes minutes."""
    waited: list[float] = []
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=waited.append))
    # Adaptive mode waits besides for a rate that it has found out.
    monkeypatch.setattr(botocore.retries.bucket.TokenBucket, "acquire", lambda *_, **__: True)
    return waited
