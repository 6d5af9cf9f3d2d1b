"""uvicorn's HTTP/1.1 connection, with a limit on the head of a request, and with errors as AWS clients read them.

Beside ASGI's own messages it offers each request an `Exchange`, at `scope["extensions"][EXCHANGE]`: a whole answer in
one call and one write, and a call when the client goes away. ASGI's two messages and a task that waits in `receive`
cost a sample a fifth of its time (see ARCHITECTURE.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from emulator.calls import new_request_id
from emulator.protocol.endpoint import EXCHANGE, Headers
from emulator.protocol.errors import ValidationException, rest_json_body

#: Bytes of a request's head, beyond what arrives with its last piece.
MAX_HEAD = 64 * 1024

#: So many bytes of a body wait for their reader, and the socket is no longer read.
HIGH_WATER = 256 * 1024


class Cycle(RequestResponseCycle):
    """One request and its response; the `Exchange` that endpoints use."""

    connection: Connection
    task: asyncio.Task[None]  #: which serves it

    def __init__(self, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.pieces: list[bytes] = []  # of the body: to gather 64 KB in uvicorn's bytearray is to copy them twice
        self.waiting_bytes = 0

    def whole_body(self) -> bytes | None:
        """The request's body, if all of it has come; then there is nothing more to receive."""
        return None if self.more_body else b"".join(self.pieces)

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        message = await super().receive()
        if message["type"] == "http.request":
            message["body"] = b"".join(self.pieces)
            self.pieces.clear()
            self.waiting_bytes = 0
        return message

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a whole answer, its head and body at once; `headers` without content-length. Once, and nothing else."""
        await self.drained()
        if self.disconnected:
            return
        fields = [b"%b: %b\r\n" % field for field in headers]
        fields.append(
            b"content-length: %d\r\n%b\r\n" % (len(body), b"" if self.keep_alive else b"connection: close\r\n")
        )
        head = STATUS_LINE[status] + b"".join(fields)
        if head.count(b"\n") != len(fields) + 2 + (not self.keep_alive):
            raise ValueError("a line break in a header of an answer")
        self.response_started = self.response_complete = True
        self.transport.write(head if self.scope["method"] == "HEAD" else head + body)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def write(self, piece: bytes) -> bool:
        """Write a piece of a stream that `send` has begun; whether the client can take the next one at once."""
        if not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return not self.flow.write_paused

    async def drained(self) -> None:
        """Returns when the client can take the next piece, or is gone."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()

    def drop(self) -> None:
        """Hang up, whatever is under way."""
        self.transport.abort()

    def watch(self, gone: Callable[[], object] | None) -> None:
        """Have `gone` called when the client goes away, at once if it has gone already; None: no longer."""
        self.connection.gone = gone
        if gone is None:
            return
        if self.flow.read_paused:  # by a large body: nobody would notice the end
            self.flow.resume_reading()
        if self.transport.is_closing():
            gone()


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    gone: Callable[[], object] | None = None
    _in_head = True
    _head_bytes = 0  # what has come since the last request, which counts until the next one's head is whole

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is larger than {MAX_HEAD} bytes")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # uvicorn's keeps a set of tasks besides, to wait for when it stops; `App` knows what is under way.
        cycle.task = self.loop.create_task(cycle.run_asgi(app))  # type: ignore[attr-defined]  # they are all `Cycle`s

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        super().connection_lost(exc)
        if self.gone is not None:
            self.gone()

    def on_headers_complete(self) -> None:
        """The head is whole: begin to answer, or stand in line behind the request before it.

        As uvicorn's, less what is not used here (WebSockets, a root path, a limit on connections).
        """
        self._in_head = False
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # a TypedDict that is still being filled
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        waits_for: RequestResponseCycle | None = self.cycle
        self.cycle = cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.connection = self
        scope["extensions"] = {EXCHANGE: cycle}
        if waits_for is None or waits_for.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """A piece of the body came."""
        cycle = self.cycle
        if cycle.response_complete:
            return
        assert isinstance(cycle, Cycle)
        cycle.pieces.append(body)
        cycle.waiting_bytes += len(body)
        if cycle.waiting_bytes > HIGH_WATER:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is whole; another one may follow."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, and hang up."""
        error = ValidationException(msg)
        body = rest_json_body(error)
        head = (
            b"HTTP/1.1 400 Bad Request\r\n"
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n"
            b"x-amzn-requestid: %b\r\n"
            b"x-amzn-errortype: %b\r\n"
            b"connection: close\r\n\r\n"
        )
        self.transport.write(head % (len(body), new_request_id(), error.code.encode()) + body)
        self.transport.close()
