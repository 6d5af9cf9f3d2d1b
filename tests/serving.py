"""An emulator in a process of its own, which a test can kill."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from emulator.address import Address
from tests.stored import PATIENCE, spelled


@dataclass(slots=True)
class Serving:
    """A running emulator."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def memory(self) -> int:
        """Bytes of it that are in memory now."""
        return psutil.Process(self.process.pid).memory_info().rss

    def most_memory(self) -> int:
        """Bytes of it that were in memory at most, which Linux knows."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024


@contextmanager
def serving(
    database: Address,
    model: str,
    *,
    log: Path,
    durability: str = "normal",
    port: int = 0,
    open_files: int | None = None,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """An emulator that runs while the block does, at most; `log` gets its log lines.

    `open_files`: how many the shell lets it open, before it asks for more. `options`: more of `serve`'s.
    `environment`: beside the test's own.
    """
    command = [sys.executable, "-m", "emulator", "serve", "--port", str(port), "--durability", durability]
    command += ["--model", model, *options]
    if open_files is not None:
        command = ["/bin/sh", "-c", f'ulimit -Sn {open_files}; exec "$@"', "sh", *command]
    # A password is not for `ps`.
    variables = os.environ | {"JOB_RUNTIME_LOCAL_DATABASE": spelled(database)} | dict(environment or {})
    with (
        log.open("a") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.search(r"listening on (http://\S+)", process.stdout.readline())
            assert found, log.read_text()
            yield Serving(found[1], process, log)
        finally:
            process.kill()
