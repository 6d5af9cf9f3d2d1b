"""A model server that does as it is told, an emulator before it, and clients: for tests of what passes through."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from emulator.server import Server
from emulator.settings import Settings
from emulator.store.queries import TurnRecord
from emulator.testing import running_server
from tests.conftest import JOB_ARN
from tests.model_servers import Behaviour, Exchange, ModelServerThread, model_server
from tests.raw_client import RawClient, Reply
from tests.stored import eventually_stored, stored_turns


class Rig:
    """A model server that does as it is told, an emulator before it, and clients."""

    def __init__(self, database: Path, model: ModelServerThread, url: str) -> None:
        self.database, self.model, self.url = database, model, url
        self.trajectory = f"t-{next(trajectories)}"
        self._clients: list[RawClient] = []
        self.client = self.another_client()

    def another_client(self) -> RawClient:
        self._clients.append(RawClient(self.url, JOB_ARN))
        return self._clients[-1]

    def sample(self, body: bytes, path: str) -> Reply:
        return self.client.sample(self.trajectory, body, path)

    def begin(self, path: str, body: bytes = b"{}") -> http.client.HTTPResponse:
        """Send a sample and read the head of its answer."""
        return self.client.begin(path, body, self.client.sample_headers(self.trajectory))

    def turns(self) -> list[TurnRecord]:
        return stored_turns(self.database, self.trajectory)

    def eventual_turn(self) -> TurnRecord:
        """The only turn, once it is stored."""
        (turn,) = eventually_stored(self.database, self.trajectory)
        return turn

    def close(self) -> None:
        for client in self._clients:
            client.close()


trajectories = count()

#: A rig whose model behaves so; with settings of its own, or the one that most tests share.
MakeRig = Callable[..., AbstractContextManager[Rig]]


@contextmanager
def emulator_before(model: ModelServerThread, database: Path, /, **changes: Any) -> Iterator[Server]:
    """A running emulator that asks the model server."""
    chosen = Settings(port=0, database=str(database), durability="normal", model=model.url, shutdown_timeout=5)
    with running_server(replace(chosen, **changes)) as server:
        yield server


@contextmanager
def new_rig(database: Path, behaviour: Behaviour, **changes: Any) -> Iterator[Rig]:
    with model_server(behaviour) as model, emulator_before(model, database, **changes) as server:
        it = Rig(database, model, server.url)
        try:
            yield it
        finally:
            it.close()


async def says_nothing(exchange: Exchange) -> None:
    """Wait until the emulator gives it up."""
    await exchange.until_client_left()
    exchange.cut()


@contextmanager
def rigs(folder: Path) -> Iterator[MakeRig]:
    """Makes rigs; those without settings of their own share one emulator, and differ in their trajectories."""
    with new_rig(folder / "shared.db", says_nothing) as shared:

        @contextmanager
        def make(behaviour: Behaviour, **changes: Any) -> Iterator[Rig]:
            if changes:
                with new_rig(folder / f"{next(trajectories)}.db", behaviour, **changes) as it:
                    yield it
                return
            shared.model.behave(behaviour)
            it = Rig(shared.database, shared.model, shared.url)
            try:
                yield it
            finally:
                it.close()

        yield make
