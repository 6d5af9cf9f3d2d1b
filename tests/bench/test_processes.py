"""Processes under measurement."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.processes import Cores, available_cores, cpu_seconds, end, memory_bytes, start
from tests.stored import eventually

#: A process with a child that holds 40 MB and computes; both until they are ended.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "held = bytearray(b'x' * 40_000_000)\\nwhile True: sum(range(1000))"])
child.wait()
"""


@contextmanager
def running(folder: Path, script: str = PARENT) -> Iterator[subprocess.Popen[bytes]]:
    process = start([sys.executable, "-c", script], available_cores().contender, folder / "log")
    try:
        yield process
    finally:
        end(process)


def test_processor_time_and_memory_are_those_of_the_whole_tree(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        eventually(lambda: memory_bytes(process.pid) > 40_000_000, "the child's memory")
        before = cpu_seconds(process.pid)
        eventually(lambda: cpu_seconds(process.pid) >= before + 0.05, "the child's processor time")
        assert psutil.Process(process.pid).memory_info().rss < 40_000_000


def test_a_process_is_ended_with_its_children(tmp_path: Path) -> None:
    with running(tmp_path) as process:
        eventually(lambda: bool(psutil.Process(process.pid).children()), "the child")
        (child,) = psutil.Process(process.pid).children()
        end(process)
        assert process.returncode is not None
        eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child's end")
        end(process)  # once more does no harm


def test_a_process_runs_on_its_cores_and_this_one_stays_where_it_was(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    cores = available_cores()
    with running(tmp_path, "import time; time.sleep(60)") as process:
        assert os.sched_getaffinity(process.pid) == cores.contender
    assert os.sched_getaffinity(0) == before
    assert cores.are_apart is (len(before) > 1)


def test_one_core_is_said_to_be_one() -> None:
    assert "one core" in str(Cores(frozenset({0}), frozenset({0})))
    assert str(Cores(frozenset({1}), frozenset({0}))) == "contenders on core 1, load and model server on core 0"
