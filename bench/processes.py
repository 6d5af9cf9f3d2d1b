"""Processes under measurement: started on their cores, ended by their ids, weighed while they run."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

#: How long a process may take to end by itself.
PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: contenders on one core; load, model server and this process on another."""

    contender: frozenset[int]
    load: frozenset[int]

    @property
    def are_apart(self) -> bool:
        """Whether the load is kept from the contender's core; on a machine with one core it cannot be."""
        return self.contender != self.load

    def __str__(self) -> str:
        if not self.are_apart:
            return "one core for all: load and contenders disturb each other"
        contender, load = next(iter(self.contender)), next(iter(self.load))
        return f"contenders on core {contender}, load and model server on core {load}"


def available_cores() -> Cores:
    """The first and the last core that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(contender=frozenset(usable[-1:]), load=frozenset(usable[:1]))


@contextlib.contextmanager
def _pinned(cores: frozenset[int]) -> Iterator[None]:
    """Be on these cores for a moment; what is started meanwhile stays there with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start(
    command: Sequence[str], cores: frozenset[int], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process on these cores; what it says goes into `log`."""
    variables = os.environ | dict(environment or {})
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # or every start would compile again what a user compiles once
    with log.open("wb") as file, _pinned(cores):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=variables)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, if it still runs: politely first, then by force."""
    if process.poll() is not None:
        return
    children: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its children so far, user and system."""
    times = [each.cpu_times() for each in _tree(pid)]
    return sum(time.user + time.system for time in times)


def memory_bytes(pid: int) -> int:
    """Memory of a process and its children; pages that several share are counted once (PSS)."""
    return sum(each.memory_full_info().pss for each in _tree(pid))


def others_seconds() -> float:
    """Processor time that the machine spent so far on anything but this process and what it has started and ended."""
    times = psutil.cpu_times()
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # What the machine's host gave to other machines counts too. Network work in the kernel is an item of its own here,
    # but part of the system time of processes.
    busy = times.user + times.nice + times.system
    busy += sum(getattr(times, name, 0.0) for name in ("irq", "softirq", "steal"))
    return busy - sum(each.ru_utime + each.ru_stime for each in own)


def raise_file_limit() -> None:
    """Let this process, and what it starts, open as many files as the system allows: thousands of streams need it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
