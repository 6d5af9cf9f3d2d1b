"""Run a script as `python SCRIPT REPORT` does, and note every other host that it looks up or connects to.

python -m tests.sdk.guarded NOTES SCRIPT REPORT
"""

from __future__ import annotations

import json
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

from tests.clients.look_ups import loopback_only

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def main(notes: str, script: str, *arguments: str) -> None:
    """Run it, and write the names and addresses as a JSON list."""
    left: list[str] = []
    socket.getaddrinfo = loopback_only(left)

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if event in {"socket.connect", "socket.sendto"} and isinstance(values[1], tuple):
            host = str(values[1][0])
            if host not in _LOOPBACK:
                left.append(host)
                raise OSError(f"{host}: tests connect to nothing but this machine")

    sys.addaudithook(watch)
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        Path(notes).write_text(json.dumps(left))


if __name__ == "__main__":
    main(*sys.argv[1:])
