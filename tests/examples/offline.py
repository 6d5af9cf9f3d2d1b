"""Serve an app of the examples as `uvicorn APP` does, on a free port, and let it look up nothing but this machine.

    python -m tests.examples.offline APP

Prints its URL. What is looked up in vain stands on standard error, behind `LOOKED_UP`.
"""

from __future__ import annotations

import socket
import sys

from tests.clients.look_ups import loopback_only

#: Before the name of each host that was looked up.
LOOKED_UP = "looked up: "


class _Refused(list[str]):
    """Hosts that were looked up; each is written down at once, as this process ends by a signal."""

    def append(self, host: str) -> None:
        super().append(host)
        print(f"{LOOKED_UP}{host}", file=sys.stderr, flush=True)


def main(app: str) -> None:
    """Serve until a signal ends it."""
    socket.getaddrinfo = loopback_only(_Refused())
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listening:
        # Not uvloop, which looks hosts up by itself.
        server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", access_log=False))
        server.config.load()
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        server.run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])
