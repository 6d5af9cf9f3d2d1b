"""Run a program where the only network is loopback.

python -m tests.sdk.loopback COMMAND …      # in a network namespace of its own, as `unshare --net` makes one
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from functools import cache

#: How programs are kept from the network: by a namespace and the guard, or by the guard alone.
NAMESPACE, GUARD = "only-loopback", "guarded"

_UNSHARE = ("unshare", "--map-root-user", "--net")
_SIOCSIFFLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40


@cache
def place() -> str:
    """Which of them it is here."""
    found = shutil.which("unshare") and subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False)
    return NAMESPACE if found and found.returncode == 0 else GUARD


def enclosed(command: list[str]) -> list[str]:
    """The command in a namespace of its own; as it is where none can be made."""
    if place() == GUARD:
        return command
    return [*_UNSHARE, sys.executable, "-m", "tests.sdk.loopback", *command]


def main(*command: str) -> None:
    """Switch loopback on, and become the program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _UP_AND_RUNNING, b""))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
