"""A program as a child: it gets the signals that we get, and its exit status is ours."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

#: What is passed on; of a stop (Ctrl-Z) and of a terminal's size the child hears itself.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

#: Those that a terminal sends to all that run in it.
_OF_TERMINALS = (signal.SIGINT, signal.SIGQUIT)

#: What shells say of a program that they cannot start.
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class Child:
    """At most one program."""

    def __init__(self, otherwise: Callable[[signal.Signals], object]) -> None:
        """`otherwise` is called with signals that come when no child runs."""
        self._otherwise = otherwise
        self._process: asyncio.subprocess.Process | None = None
        self._is_starting = False
        self._early: list[signal.Signals] = []  # came while it was started

    def take_signals(self) -> None:
        """From here on, this process's signals are the child's."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._is_starting:
            self._early.append(number)
        elif self._process is None or self._process.returncode is not None:
            self._otherwise(number)
        elif number not in _OF_TERMINALS or not _in_foreground():
            self._process.send_signal(number)

    async def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run it to its end; the exit status, as shells count it."""
        self._is_starting = True
        try:
            self._process = await asyncio.create_subprocess_exec(*command, env=dict(environment))
        except OSError as error:
            print(f"job-runtime-local: {command[0]}: {error.strerror}", file=sys.stderr)
            return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        finally:
            self._is_starting = False
        for number in self._early:
            self._on_signal(number)
        status = await self._process.wait()
        return status if status >= 0 else 128 - status


def _in_foreground() -> bool:
    """Whether a terminal's Ctrl-C came to the child as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
