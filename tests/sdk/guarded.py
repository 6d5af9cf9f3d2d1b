"""A guard in every Python process of a test: it looks up and connects to nothing but this machine.

It works beside a network namespace, and in its place where none can be made; whatever it refuses is noted.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from tests.sdk import ROOT

#: Names the file of the notes.
NOTES = "GUARD_NOTES"

_LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
_CONNECTIONS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_HERE = {"", "None", "127.0.0.1", "::1", "localhost"}


def guarded(folder: Path) -> dict[str, str]:
    """The variables by which Python programs are guarded; `left` reads what they tried."""
    (folder / "guard").mkdir()
    (folder / "guard" / "sitecustomize.py").write_text("from tests.sdk.guarded import watch\n\nwatch()\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder / "guard"), str(ROOT)]), NOTES: str(folder / "left")}


def left(folder: Path) -> list[str]:
    """The hosts that were looked up or connected to, and are not this machine."""
    notes = folder / "left"
    return notes.read_text().split() if notes.exists() else []


def watch() -> None:
    """Guard this process."""
    notes = os.environ[NOTES]

    def look(event: str, values: tuple[Any, ...]) -> None:
        if event in _LOOK_UPS:
            host = values[0]
        elif event in _CONNECTIONS and isinstance(values[1], tuple):
            host = values[1][0]
        else:
            return
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name not in _HERE:
            with Path(notes).open("a") as file:
                file.write(f"{name}\n")
            raise socket.gaierror(socket.EAI_NONAME, f"{name}: tests reach nothing but this machine")

    sys.addaudithook(look)
