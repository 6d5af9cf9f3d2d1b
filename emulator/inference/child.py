"""A server as a child process: on a free port, and ended with us whatever becomes of us (see `watchdog.py`)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

WATCHDOG = Path(__file__).with_name("watchdog.py")

# They tell our interpreter where its modules are and what to warn of; another one trips over them.
PYTHON_SETTINGS = ("PYTHONHOME", "PYTHONPATH", "PYTHONWARNINGS", "PYTHONDEVMODE", "__PYVENV_LAUNCHER__")


async def spawn(
    command: Sequence[str], *, grace: float, output: BinaryIO, environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Run a command until it ends or its standard input is closed. Raises OSError.

    It has `grace` seconds then, before it and all its processes are killed.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(WATCHDOG), str(grace), *command),
        stdin=asyncio.subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,  # Ctrl-C is for us; we end the child
    )


async def end(process: asyncio.subprocess.Process) -> None:
    """End a child with all its processes; returns when they are gone."""
    if process.stdin is not None:
        process.stdin.close()  # at which the watchdog ends the command, then itself
    await process.wait()


def environment_for(python: str | None) -> dict[str, str]:
    """Our environment, fit for an interpreter: None is our own."""
    environment = dict(os.environ)
    if python is not None:
        for name in PYTHON_SETTINGS:
            environment.pop(name, None)
    environment["PYTHONSAFEPATH"] = "1"  # no module of the current directory hides one of the child's
    return environment


def how_it_ended(status: int) -> str:
    """In words; the watchdog says 128 + N for signal N, as a shell does."""
    number = status - 128 if status > 128 else -status
    if number in {member.value for member in signal.Signals}:
        return f"was killed by {signal.Signals(number).name}"
    return f"exited with status {status}"


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
