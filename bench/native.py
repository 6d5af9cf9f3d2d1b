"""The two C programs: a model server that costs next to nothing, and a load generator that outruns it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
BUILD = ROOT / ".build"
MODEL_SERVER = BUILD / "model_server"
LOAD = BUILD / "load"


class LoadError(Exception):
    """The load generator did not get through; the message says why."""


def build() -> None:
    """Compile both, unless they are there. Raises LoadError."""
    command = ["make", "--silent", "-C", str(ROOT / "native")]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise LoadError(f"bench/native could not be built: {made.stderr.strip()}")


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float

    @classmethod
    def read(cls, microseconds: dict[str, float]) -> Spread:
        """From what `load` prints."""
        return cls(**{name: value / 1000 for name, value in microseconds.items()})


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to."""

    requests: int  #: those with an answer
    errors: int  #: those without, or with what is no answer
    lost: int  #: streams without their end
    seconds: float
    rate: float
    status: dict[str, int]
    latency: Spread
    first_event: Spread | None
    event_delay: Spread | None  #: from the model server's write to the client's read
    events: int
    event_rate: float
    merged: int  #: events that came together with the one before
    behind: int  #: open loop: requests that left late

    @property
    def refused(self) -> int:
        """Answers of other statuses than success."""
        return sum(count for status, count in self.status.items() if not status.startswith("2"))

    @property
    def wrong(self) -> int:
        """Whatever did not go as it should; a stream may count twice."""
        return self.errors + self.lost + self.refused

    @classmethod
    def read(cls, document: dict[str, Any]) -> Load:
        """From what `load` prints."""
        first_event, event_delay = document["first_event_us"], document["event_delay_us"]
        plain = {
            name: document[name]
            for name in (
                "requests", "errors", "lost", "seconds", "rate", "status", "events", "event_rate", "merged", "behind",
            )
        }  # fmt: skip
        return cls(
            **plain,
            latency=Spread.read(document["latency_us"]),
            first_event=Spread.read(first_event) if first_event else None,
            event_delay=Spread.read(event_delay) if event_delay else None,
        )


class RunningLoad:
    """A load under way; `result` waits for its end."""

    def __init__(self, port: int, requests: Sequence[bytes], options: Sequence[str], cores: frozenset[int]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-load-")
        files: list[str] = []
        for number, request in enumerate(requests):
            file = Path(self._folder.name) / f"{number}.http"
            file.write_bytes(request)
            files += ["--request", str(file)]
        self._process = subprocess.Popen(
            [str(LOAD), f"127.0.0.1:{port}", *options, *files], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.sched_setaffinity(self._process.pid, cores)

    def result(self, timeout: float) -> Load:
        """What it came to. Raises LoadError."""
        try:
            output, errors = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise LoadError(f"no end after {timeout:g} s") from None
        finally:
            self.stop()
        if self._process.returncode:
            raise LoadError(f"load ended with {self._process.returncode}: {errors.decode().strip()}")
        return Load.read(json.loads(output))

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()
