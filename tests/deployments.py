"""Emulators as they may be deployed: one on a file or on PostgreSQL, or several on one PostgreSQL database."""

from __future__ import annotations

import http.client
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emulator.address import Address, DatabaseURL
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.conftest import JOB_ARN
from tests.postgresql import PostgreSQL
from tests.raw_client import RawClient
from tests.stored import spelled

Kind = Literal["sqlite", "postgresql", "two on postgresql"]

KINDS: list[Kind] = ["sqlite", "postgresql", "two on postgresql"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Running emulators, and the database that is all of theirs."""

    database: Address
    servers: list[Server]

    @property
    def urls(self) -> list[str]:
        """Where they are."""
        return [server.url for server in self.servers]

    def client(self, job_arn: str = JOB_ARN) -> RoamingClient:
        """A client that moves between them."""
        return RoamingClient(self.urls, job_arn)


class RoamingClient(RawClient):
    """Each request goes to any of several emulators, as a load balancer may have it."""

    def __init__(self, urls: list[str], job_arn: str) -> None:
        super().__init__(urls[0], job_arn)
        others = [RawClient(url, job_arn) for url in urls[1:]]
        self._connections = [self._connection, *(other._connection for other in others)]

    def begin(
        self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, method: str = "POST"
    ) -> http.client.HTTPResponse:
        """Send a request and read the head of its answer."""
        self._connection = random.choice(self._connections)
        return super().begin(path, body, headers, method)

    def send_only(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a request, and leave its answer unread."""
        self._connection = random.choice(self._connections)
        super().send_only(path, body, headers)

    def close(self) -> None:
        """Go away, whatever is under way."""
        for connection in self._connections:
            connection.close()


@contextmanager
def deployed(kind: Kind, folder: Path, postgresql: PostgreSQL, **settings: Any) -> Iterator[Deployment]:
    """Running emulators on a new database."""
    is_file = kind == "sqlite"
    address: Address = folder / "deployed.db" if is_file else DatabaseURL(postgresql.create_database())
    with serving_together(address, 2 if kind == "two on postgresql" else 1, **settings) as deployment:
        yield deployment


@contextmanager
def serving_together(address: Address, count: int, **settings: Any) -> Iterator[Deployment]:
    """So many emulators on one database."""
    chosen = Settings(port=0, database=spelled(address), durability="normal", **settings)
    with ExitStack() as stack:
        yield Deployment(address, [stack.enter_context(running_server(chosen)) for _ in range(count)])
