"""Where and of what a run was made."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures depend on."""

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    sqlite: str
    date: str
    commit: str  #: with `+` where files differ from it

    def __str__(self) -> str:
        return (
            f"{self.date[:16].replace('T', ' ')} UTC, commit {self.commit}; {self.cores} cores {self.processor}, "
            f"{self.memory_gib:.0f} GiB, {self.kernel}, Python {self.python}, SQLite {self.sqlite}"
        )

    def document(self) -> dict[str, object]:
        """As JSON."""
        return asdict(self)


def this_machine() -> Machine:
    """This one, now."""
    return Machine(
        processor=_processor(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        kernel=f"{platform.system()} {platform.release().split('-')[0]}",
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(),
    )


def _processor(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git(
            "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results", ":!bench/README.md"
        )
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
