"""One contender at a time, started before a model server, put under load, and ended."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from bench.contenders import Contender, Place
from bench.native import BUILD, MODEL_SERVER, Load, LoadError, RunningLoad
from bench.processes import Cores, cpu_seconds, end, free_port, memory_bytes, start

#: No contender takes longer to start.
START_TIMEOUT = 90.0

#: Events of one stream of the model server, unless told otherwise.
EVENTS = 64


class ContenderFailed(Exception):
    """A contender did not start, or failed too many requests; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Rig:
    """Cores and the model server that contenders have behind them."""

    cores: Cores
    model_port: int
    folder: Path

    @contextlib.contextmanager
    def visit(self, contender: Contender, database: Path | None = None) -> Iterator[Visit]:
        """A contender that runs and has answered once. Raises ContenderFailed."""
        folder = Path(tempfile.mkdtemp(prefix=f"{contender.name}-", dir=self.folder))
        place = Place(folder, free_port(), free_port(), self.model_port, database)
        command = contender.command(place)
        log = folder / "log"
        began = time.perf_counter()
        process = start(command, self.cores.contender, log, contender.environment)
        try:
            _wait_for_answer(contender, place.port, process, log)
            started = time.perf_counter() - began
            yield Visit(self, contender, place, process, started)
        finally:
            end(process)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def open_rig(cores: Cores) -> Iterator[Rig]:
    """Start the model server; what the run writes is in one folder, which goes with it."""
    # Beside the sources and not in /tmp, which may be in memory: a disk is part of what is measured.
    with tempfile.TemporaryDirectory(prefix="run-", dir=BUILD) as name:
        folder, port = Path(name), free_port()
        process = start([str(MODEL_SERVER), str(port)], cores.load, folder / "model_server.log")
        try:
            _wait_for(
                lambda: _status(port, b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n") == 200,
                process,
                folder / "model_server.log",
            )
            yield Rig(cores, port, folder)
        finally:
            end(process)


class Demand(TypedDict, total=False):
    """How much load, in the words of `load`: so many seconds, or so many requests."""

    seconds: float
    requests: int
    rate: float  #: so many a second, whether answers come or not
    warmup: float  #: seconds before, of which nothing counts
    turns: int  #: of a trajectory, before a connection begins another
    first_cycle: int
    timeout: float  #: patience with an answer, in seconds


@dataclass(slots=True)
class Visit:
    """A contender under measurement."""

    rig: Rig
    contender: Contender
    place: Place
    process: subprocess.Popen[bytes]
    started: float  #: seconds from its start to its first answer
    cycles: int = field(default=1)  #: the next that `load` may number; trajectories are named after them

    def load(self, templates: Sequence[bytes], connections: int, **demand: Unpack[Demand]) -> Load:
        """Put it under load, and wait for the end. Raises ContenderFailed where answers fail."""
        return self.finish(self.begin_load(templates, connections, **demand))

    def begin_load(self, templates: Sequence[bytes], connections: int, **demand: Unpack[Demand]) -> RunningLoad:
        """Put it under load."""
        options: dict[str, float] = {"connections": connections, "timeout": 60, "first-cycle": self.cycles}
        options |= {name.replace("_", "-"): value for name, value in demand.items() if isinstance(value, int | float)}
        self.cycles += 10_000_000  # more than any load gets through
        arguments = [text for name, value in options.items() for text in (f"--{name}", f"{value:.12g}")]
        return RunningLoad(self.place.port, templates, arguments, self.rig.cores.load)

    def result(self, running: RunningLoad, timeout: float = 240.0) -> Load:
        """What a load came to, failures included. Raises ContenderFailed where it did not come to an end."""
        try:
            return running.result(timeout)
        except LoadError as error:
            raise ContenderFailed(str(error)) from None

    def finish(self, running: RunningLoad) -> Load:
        """What a load came to. Raises ContenderFailed where answers fail."""
        load = self.result(running)
        if load.wrong or not load.requests:
            raise ContenderFailed(
                f"{load.requests} answers, {load.refused} of them no success (statuses {load.status}), "
                f"{load.errors} requests without, {load.lost} streams without their end"
            )
        return load

    def pace(self, interval: float = 0.0, events: int = EVENTS) -> None:
        """How many events the model server's streams have, and how many seconds are between two of them."""
        port = self.place.port if self.contender.name == "direct" else self.rig.model_port
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            for path in (f"/interval/{round(interval * 1e6)}", f"/chunks/{events}"):
                connection.request("PUT", path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise ContenderFailed(f"the model server answered {answer.status} to PUT {path}")

    def cpu(self) -> float:
        """Processor time it has used so far, in seconds."""
        return cpu_seconds(self.process.pid)

    def cpu_share(self, seconds: float) -> float:
        """The share of a core that it uses for so many seconds from now."""
        before, began = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - began)

    def memory(self) -> int:
        """Its memory, in bytes."""
        return memory_bytes(self.process.pid)

    def end(self) -> None:
        """End it now; its files are there until the visit is over."""
        end(self.process)

    def get(self, path: str) -> bytes:
        """What one of its pages says. Raises ContenderFailed."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=60)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise ContenderFailed(f"GET {path}: {answer.status}")
        return body


def _wait_for_answer(contender: Contender, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    request = contender.sample().replace(b"@TRAJECTORY@", b"0" * 12).replace(b"@CYCLE_____@", b"0" * 12)
    _wait_for(lambda: _status(port, request) == 200, process, log)


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not condition():
        if process.poll() is not None:
            raise ContenderFailed(f"ended with {process.returncode} before it answered: {_last_line(log)}")
        if time.monotonic() > deadline:
            raise ContenderFailed(f"no answer within {START_TIMEOUT:g} s: {_last_line(log)}")
        time.sleep(0.002)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _status(port: int, request: bytes) -> int | None:
    """The status of the answer; None: there was none."""
    with socket.socket() as connection:
        connection.settimeout(30)
        try:
            connection.connect(("127.0.0.1", port))
            connection.sendall(request)
            head = b""
            while b"\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return None
                head += piece
        except OSError:
            return None
        return int(head.split(None, 2)[1])


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
