"""A program as a child of this process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from emulator.offline.child import SIGNALS, Child


def test_a_signal_that_comes_while_the_program_is_started_is_its_own() -> None:
    others: list[signal.Signals] = []

    async def run() -> int:
        child = Child(others.append)
        child.take_signals()
        try:
            running = asyncio.create_task(
                child.run([sys.executable, "-c", "import signal; signal.alarm(30); signal.pause()"], os.environ)
            )
            os.kill(os.getpid(), signal.SIGTERM)  # seen when the loop turns, and so is the program's start
            return await asyncio.wait_for(running, 20)
        finally:
            for number in SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)

    assert (asyncio.run(run()), others) == (128 + signal.SIGTERM, [])
