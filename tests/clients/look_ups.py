"""No client in these tests reaches anything but this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any


def loopback_only(refused: list[str]) -> Callable[..., Any]:
    """What to put in place of `socket.getaddrinfo`: it refuses every other host, and remembers it in `refused`."""
    look_up = socket.getaddrinfo

    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in {"127.0.0.1", "localhost", "::1"}:
            refused.append(name)
            raise socket.gaierror(socket.EAI_NONAME, f"{name}: tests look up nothing but this machine")
        return look_up(host, *args, **kwargs)

    return guarded
