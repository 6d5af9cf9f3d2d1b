"""`job-runtime-local run` in a process of its own, around a program of a few lines."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.clients.environments import client_variables
from tests.commands.rolling import PATIENCE, ROOT

#: No proxy of whoever runs the tests, and none of their credentials.
ENVIRONMENT = client_variables() | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}


def running(*options: str, program: str, python: str = sys.executable, before: tuple[str, ...] = ()) -> list[str]:
    """The command that runs a program of Python; nothing on disk."""
    run = [sys.executable, "-W", "error", "-m", "emulator", "run", *options, "--", python, "-c"]
    return [*before, *run, textwrap.dedent(program)]


def run(
    folder: Path,
    program: str,
    *options: str,
    python: str = sys.executable,
    before: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; `before`: what the command itself is run by."""
    options = options or ("--durability", "memory")
    return subprocess.run(
        running(*options, program=program, python=python, before=before),
        cwd=folder,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=patience,
    )
