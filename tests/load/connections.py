"""HTTP for clients under load: as many connections as there are requests, each kept for the next one."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

from tests.conftest import JOB_ARN
from tests.load.conversation import DONE


@dataclass(slots=True)
class Reply:
    """What came of a request. Nothing at all has the status 0."""

    status: int = 0
    error: str = ""
    pieces: list[bytes] = field(default_factory=list)  #: of the body, as they were sent: chunk by chunk
    is_whole: bool = False
    begun: Callable[[], object] = lambda: None

    @property
    def body(self) -> bytes:
        """All of it that came."""
        return b"".join(self.pieces)

    @property
    def is_acknowledged(self) -> bool:
        """Whether a client takes it for an answer. Many stop reading where a stream says that it is done."""
        return self.status == 200 and (self.is_whole or self.body.endswith(DONE))

    @property
    def is_final(self) -> bool:
        """Whether to ask again would be of no use."""
        return self.is_acknowledged or 400 <= self.status < 500

    @property
    def outcome(self) -> str:
        """In a few words."""
        if self.status == 0:
            return "no answer"
        if not self.is_whole:
            return f"{self.status} broken off"
        if not self.error:
            return str(self.status)
        return f"{self.status} {self.error}: {json.loads(self.body)['Message'].partition(chr(10))[0]}"


class _Connection(asyncio.Protocol):
    """One connection: a request, its reply, the next request."""

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: list[_Connection]) -> None:
        self._loop = loop
        self._idle = idle  # where it waits for its next request
        self._parser = httptools.HttpResponseParser(self)
        self._reply = Reply()
        self._done: asyncio.Future[None] = loop.create_future()
        self._in_chunk = False

    async def call(self, request: bytes, reply: Reply, patience: float) -> None:
        """Send a request, and return when its reply is whole, or nothing more will come of it."""
        if self._transport.is_closing():
            return
        self._reply, self._done = reply, self._loop.create_future()
        timer = self._loop.call_later(patience, self._give_up)
        try:
            self._transport.write(request)
            await self._done
        finally:
            timer.cancel()

    def close(self) -> None:
        self._transport.abort()

    def _give_up(self) -> None:
        if not self._done.done():
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._idle:
            self._idle.remove(self)
        if not self._done.done():
            self._done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"x-amzn-errortype":
            self._reply.error = value.decode()

    def on_headers_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()
        self._reply.begun()

    def on_chunk_header(self) -> None:
        self._in_chunk = False

    def on_body(self, piece: bytes) -> None:
        if self._in_chunk:
            self._reply.pieces[-1] += piece
        else:
            self._reply.pieces.append(piece)
            self._in_chunk = True

    def on_message_complete(self) -> None:
        self._in_chunk = False
        self._reply.is_whole = True
        self._idle.append(self)
        if not self._done.done():
            self._done.set_result(None)


class Connections:
    """Calls emulators, wherever they are."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[_Connection]] = defaultdict(list)

    async def call(
        self,
        url: str,
        path: str,
        body: bytes,
        trajectory_id: str | None = None,
        patience: float = 90,
        begun: Callable[[], object] = lambda: None,
    ) -> Reply:
        """Send a request; whatever goes wrong is in the reply. `begun` is called when its head is there.

        After `patience` seconds the client goes away.
        """
        loop = asyncio.get_running_loop()
        host, _, port = urlsplit(url).netloc.partition(":")
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nx-amzn-sagemaker-job-arn: {JOB_ARN}\r\n"
        if trajectory_id is not None:
            head += f"x-amzn-sagemaker-trajectory-id: {trajectory_id}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        reply = Reply(begun=begun)
        idle = self._idle[url]
        if idle:
            connection = idle.pop()
        else:
            try:
                _, connection = await loop.create_connection(lambda: _Connection(loop, idle), host, int(port))
            except OSError:
                return reply
        await connection.call(head.encode() + body, reply, patience)
        return reply

    def close(self) -> None:
        """End the connections that are idle."""
        for idle in self._idle.values():
            for connection in tuple(idle):
                connection.close()
