"""Tests of the model servers, and the server that they talk to: it writes exactly the bytes of a script."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

Script = Callable[["Wire"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Wire:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> tuple[bytes, bytes]:
        head = await self.head()
        length = re.search(rb"content-length: (\d+)", head)
        return head, await self.reader.readexactly(int(length[1])) if length else b""

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self) -> None:
        """Until the client is gone."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Server:
    """Plays script N on connection N, and the last one on all further connections."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.accepted = 0
        self.port = 0
        self.failures: list[Exception] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.writers: list[asyncio.StreamWriter] = []
        self.done = asyncio.Event()  # a script came to its end

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.writers.append(writer)
        script = self.scripts[min(self.accepted, len(self.scripts) - 1)]
        self.accepted += 1
        try:
            await script(Wire(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test is over
        except Exception as error:
            self.failures.append(error)
        finally:
            self.done.set()
            self.tasks.discard(task)
            writer.close()


@asynccontextmanager
async def serving(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(*scripts)
    listener = await asyncio.start_server(server.play, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        tasks = tuple(server.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        for writer in server.writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in server.writers), return_exceptions=True)
        await listener.wait_closed()
    assert server.failures == []


def run(body: Coroutine[Any, Any, None]) -> None:
    """Run a test's body; whatever is reported to the event loop's exception handler fails it."""
    reported: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await asyncio.wait_for(body, 60)

    asyncio.run(watched())
    assert reported == []


def answering(*answers: bytes) -> Script:
    """Each request of a connection gets the next answer; after the last, the connection is closed."""

    async def script(wire: Wire) -> None:
        for answer in answers:
            await wire.request()
            await wire.write(answer)

    return script


def always(answer: bytes) -> Script:
    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.write(answer)

    return script
