"""What outlives the server, in a SQLite file beside the database: `job-runtime-local.db-aws`.

Two tables: requests that moto is told again when it is loaded next time (`kept` says which), and documents of our own
services. Each change is one transaction, so that a crash leaves it whole or not there.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Of the tables; a file of another one is not touched.
VERSION = 1

_TABLES = """
CREATE TABLE requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT, about TEXT NOT NULL, at REAL NOT NULL, head TEXT NOT NULL, body BLOB NOT NULL
);
CREATE INDEX requests_about ON requests (about);
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL,
    UNIQUE (kind, name)
);
"""


class UnreadableFile(Exception):
    """The file is none of ours, or of another version."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A request that moto is told again, or an object that it is given."""

    about: str  #: what it makes or changes: `s3/BUCKET/KEY`
    at: float  #: seconds since 1970
    head: dict[str, Any]
    body: bytes


class Disk:
    """The file; without a path, nothing but memory. Any thread may use it. It is made by the first write."""

    def __init__(self, path: Path | None, *, durable: bool) -> None:
        """`durable`: a commit survives a power cut, else a crash of the server."""
        self.path = path
        self._durable = durable
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None

    @property
    def lasts(self) -> bool:
        """Whether there is a file: without one, there is no use in keeping requests."""
        return self.path is not None

    def keep(self, kept: Kept, *, instead: bool) -> None:
        """Keep a request; `instead` of all that there is about the same thing, else after it."""
        with self._lock, self._open() as connection:
            if instead:
                connection.execute("DELETE FROM requests WHERE about = ?", (kept.about,))
            connection.execute(
                "INSERT INTO requests (about, at, head, body) VALUES (?, ?, ?, ?)",
                (kept.about, kept.at, json.dumps(kept.head), kept.body),
            )

    def has(self, about: str) -> bool:
        """Whether anything is kept about a thing."""
        with self._lock:
            if not self._exists:
                return False
            with closing(self._open().execute("SELECT 1 FROM requests WHERE about = ?", (about,))) as rows:
                return rows.fetchone() is not None

    def drop(self, about: str) -> None:
        """Keep nothing more about a thing."""
        with self._lock:
            if self._exists:
                with self._open() as connection:
                    connection.execute("DELETE FROM requests WHERE about = ?", (about,))

    def drop_below(self, prefix: str) -> None:
        """Keep nothing more about whatever begins so."""
        with self._lock:
            if self._exists:
                with self._open() as connection:
                    connection.execute("DELETE FROM requests WHERE substr(about, 1, ?) = ?", (len(prefix), prefix))

    @property
    def is_empty(self) -> bool:
        """Whether no request is kept."""
        with self._lock:
            return not self._exists or self._open().execute("SELECT 1 FROM requests LIMIT 1").fetchone() is None

    def requests(self) -> Iterator[Kept]:
        """All that is kept, in the order in which it happened. Nothing else may use the file meanwhile."""
        with self._lock:
            if not self._exists:
                return
            rows = self._open().execute("SELECT about, at, head, body FROM requests ORDER BY id")
            for about, at, head, body in rows:
                yield Kept(about, at, json.loads(head), body)

    def put(self, kind: str, name: str, document: dict[str, Any]) -> None:
        """Store a document, in the place of one of the same name."""
        with self._lock, self._open() as connection:
            connection.execute(
                "INSERT INTO documents (kind, name, document) VALUES (?, ?, ?) "
                "ON CONFLICT (kind, name) DO UPDATE SET document = excluded.document",
                (kind, name, json.dumps(document)),
            )

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """A document."""
        return next((document for each, document in self.documents(kind) if each == name), None)

    def documents(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        """All documents of a kind with their names, the oldest first."""
        with self._lock:
            if not self._exists:
                return []
            rows = self._open().execute("SELECT name, document FROM documents WHERE kind = ? ORDER BY id", (kind,))
            return [(name, json.loads(document)) for name, document in rows]

    def remove(self, kind: str, name: str) -> None:
        """Remove a document, if it is there."""
        with self._lock:
            if self._exists:
                with self._open() as connection:
                    connection.execute("DELETE FROM documents WHERE kind = ? AND name = ?", (kind, name))

    def clear(self) -> None:
        """Keep nothing of all that."""
        with self._lock:
            if self._exists:
                with self._open() as connection:
                    connection.execute("DELETE FROM requests")
                    connection.execute("DELETE FROM documents")

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @property
    def _exists(self) -> bool:
        return self._connection is not None or (self.path is not None and self.path.exists())

    def _open(self) -> sqlite3.Connection:
        """Raises UnreadableFile."""
        if self._connection is None:
            try:
                connection = sqlite3.connect(self.path or ":memory:", check_same_thread=False)
            except sqlite3.Error as error:
                raise UnreadableFile(f"{self.path}: {error}") from None
            try:
                self._prepare(connection)
            except sqlite3.DatabaseError as error:
                connection.close()
                raise UnreadableFile(f"{self.path}: {error}") from None
            except UnreadableFile:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise UnreadableFile(f"{self.path}: its tables are of version {version}, and this emulator's of {VERSION}")
        connection.execute("PRAGMA auto_vacuum = FULL")  # objects are large: what is deleted goes
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA journal_size_limit = {16 * 1024 * 1024}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        if version == 0:
            connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
