"""The benchmark's two C programs, run by tests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parents[2] / "bench" / "native"

#: A mistake with memory ends the program, and so fails the test. Leaks cannot be looked for in every container.
SANITIZERS = "-O2 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}

#: No wait of a test takes longer, unless something is broken.
PATIENCE = 60.0


def build(folder: Path) -> Path:
    """Compile both into a folder."""
    command = ["make", "--silent", "-C", str(SOURCES), f"BUILD={folder}", f"CFLAGS={SANITIZERS}"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert made.returncode == 0, made.stderr
    return folder


@dataclass(slots=True)
class ModelServerProcess:
    """A running model_server."""

    port: int
    process: subprocess.Popen[str]

    def connect(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; says with which code it ended."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def running_model_server(programs: Path, port: int = 0) -> Iterator[ModelServerProcess]:
    """A model_server, which must end well."""
    process = subprocess.Popen(
        [programs / "model_server", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        ready = re.fullmatch(r"listening on (\d+)\n", line)
        assert ready, line
        server = ModelServerProcess(int(ready[1]), process)
        yield server
        assert process.poll() is not None or server.end() == 0
    finally:
        if process.poll() is None:
            process.kill()
        _, errors = process.communicate()
    assert process.returncode == 0, errors


@dataclass(frozen=True, slots=True)
class Load:
    """Runs load."""

    programs: Path
    folder: Path  #: for the requests

    def file(self, body: str | bytes = "{}", path: str = "/v1/chat/completions", name: str = "request") -> str:
        """A raw POST in a file."""
        body = body if isinstance(body, bytes) else body.encode()
        file = self.folder / f"{name}.http"
        file.write_bytes(
            b"POST %b HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)) + body
        )
        return str(file)

    def try_to(self, *arguments: str | int | float) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it."""
        command = [str(self.programs / "load"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ENVIRONMENT, check=False)

    def __call__(self, port: int, *arguments: str | int | float, files: tuple[str, ...] = ()) -> dict[str, Any]:
        """What it reports. The request is an empty one unless files are given."""
        requests = [part for file in files or (self.file(),) for part in ("--request", file)]
        ended = self.try_to(f"127.0.0.1:{port}", *arguments, *requests)
        assert (ended.returncode, ended.stderr) == (0, "")
        report = json.loads(ended.stdout)
        assert isinstance(report, dict)
        return report
