"""Runs a command in a process group of its own, and ends the whole group when the command or our owner is gone.

    python -I -S watchdog.py GRACE_SECONDS COMMAND...

The owner holds the other end of our standard input and never writes: end of file means that it closed it, or died
in whatever way. A process of its own, because nothing else is left to act after a SIGKILL of the owner; the kernel's
PR_SET_PDEATHSIG reaches only the child itself (vLLM's engine survives it with all its memory) and only on Linux.
Exits with the command's status, 128 + N if signal N ended it. Imports nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

STRAGGLERS = 5.0  # seconds for what the command left behind; vLLM's resource tracker frees shared memory in them


def main(grace: float, command: list[str]) -> int:
    """Run the command to its end. Raises OSError if it cannot be run."""
    adopt_orphans()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)  # noqa: S603
    # Ours alone: `kill WATCHDOG` ends the command too. Set after the fork, lest the command inherit it.
    signal.signal(signal.SIGTERM, lambda *_: tell(child.pid, signal.SIGTERM))
    threading.Thread(target=end_with_owner, args=(child.pid, grace), daemon=True).start()
    status = child.wait()
    tell(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + STRAGGLERS
    while tell(child.pid, 0) and time.monotonic() < deadline:
        reap()
        time.sleep(0.01)
    tell(child.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def adopt_orphans() -> None:
    """Make us the parent of what the command leaves behind; a container's first process may reap nobody."""
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap() -> None:
    """Reap the orphans that have ended: the group of a zombie looks alive."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_with_owner(group: int, grace: float) -> None:
    """Wait for the end of standard input; then the group has `grace` seconds to end in good order."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    tell(group, signal.SIGTERM)
    time.sleep(grace)
    tell(group, signal.SIGKILL)


def tell(group: int, signum: int) -> bool:
    """Send the signal to every process of the group; False if there is none any more."""
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
