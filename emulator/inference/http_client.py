"""A lean keep-alive HTTP/1.1 client for one origin: no redirects, no cookies, no compression.

It is the hot path of every sample, hence no task a request and one future a wait.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache

from emulator.inference.http_connection import Answer, Connection
from emulator.inference.model_server import (
    BrokenAnswer,
    ModelServerTimeout,
    ModelServerUnavailable,
    header_lines,
)


class HTTPClient:
    """Keep-alive connections to one origin: as many at once as there are requests, `max_idle` of them kept."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: bool = False,
        connect_timeout: float = 5.0,
        answer_timeout: float = 600.0,
        idle_timeout: float = 120.0,
        max_idle: int = 256,
        keep_alive: float = 60.0,
    ) -> None:
        name = f"[{host}]" if ":" in host else host
        self.authority = f"{name}:{port}"
        self.answer_timeout = answer_timeout
        self.idle_timeout = idle_timeout
        self.connections: set[Connection] = set()
        self._host = host
        self._port = port
        self._host_field = name if port == (443 if tls else 80) else self.authority
        self._tls = ssl.create_default_context() if tls else None
        self._connect_timeout = connect_timeout
        self.max_idle = max_idle
        self._keep_alive = keep_alive
        self.idle: dict[Connection, float] = {}  # since when; the last one in is the first one out
        self.closed = False

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        more_lines: bytes = b"",
    ) -> Answer:
        """Send a request and wait for the head of its answer, whatever its status.

        `headers` are those that most requests have alike, `more_lines` (see `header_lines`) are this one's own.
        Adds `host`, `accept-encoding` and `content-length` to `headers`. Raises ModelServerError, or ValueError if
        the target or a header has a line break. Cancelling it ends the connection, so that the server notices.
        """
        head = self._head(method, target, headers, more_lines, body)
        idle = self._take_idle()
        if idle is not None:
            try:
                return await idle.exchange(head, body)
            except ModelServerUnavailable:
                pass  # closed by the server just as the request left (RFC 9112, 9.3.1): once more, on a new one
        connection = await self._connect()
        return await connection.exchange(head, body)

    async def aclose(self) -> None:
        """End every connection; answers still on their way break."""
        self.closed = True
        connections = tuple(self.connections)
        for connection in connections:
            connection.end(BrokenAnswer("The connections to the model server were closed"))
        if connections:
            await asyncio.wait([connection.lost for connection in connections])

    def _head(self, method: str, target: str, headers: Mapping[str, str], more_lines: bytes, body: bytes) -> bytes:
        head = _fixed_head(method, target, self._host_field, tuple(headers.items()))
        length = b"content-length: %d\r\n" % len(body) if body or method == "POST" else b""
        return b"%b%b%b\r\n" % (head, more_lines, length)

    def _take_idle(self) -> Connection | None:
        if not self.idle:
            return None
        connection, since = self.idle.popitem()
        if connection.loop.time() - since < self._keep_alive:
            return connection
        for stale in (connection, *self.idle):  # the others are older still
            stale.end()
        return None

    async def _connect(self) -> Connection:
        if self.closed:
            raise ModelServerUnavailable("The connections to the model server were closed")
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(self._connect_timeout)
        try:
            async with limit:
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop), self._host, self._port, ssl=self._tls
                )
        except (OSError, UnicodeError) as error:
            if limit.expired():
                seconds = f"{self._connect_timeout:g} s (--model-connect-timeout)"
                raise ModelServerTimeout(f"No connection to {self.authority} within {seconds}") from None
            raise ModelServerUnavailable(_why_unreachable(error, self.authority)) from error
        return connection


@lru_cache(maxsize=64)
def _fixed_head(method: str, target: str, host: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    if "\r" in target or "\n" in target:
        raise ValueError("a line break in a request's target")
    start = f"{method} {target} HTTP/1.1\r\n".encode("latin-1")
    return start + header_lines({"host": host, "accept-encoding": "identity", **dict(headers)})


def _why_unreachable(error: OSError | UnicodeError, authority: str) -> str:
    # With several addresses (::1 and 127.0.0.1) the event loop raises one OSError that quotes those of each.
    if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
        return f"Connection refused by {authority}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"No address known for {authority}"
    if isinstance(error, ssl.SSLError):
        return f"No TLS with {authority}: {getattr(error, 'verify_message', None) or error.reason or error}"
    return f"No connection to {authority}: {error.strerror or error}"
