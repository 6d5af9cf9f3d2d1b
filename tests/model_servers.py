"""Model servers that do exactly what a test tells them, byte by byte: on real sockets, in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

#: No wait of a test takes longer, unless something is broken.
PATIENCE = 30.0

EVENTS = "text/event-stream"
JSON = "application/json"


class ClientLeft(Exception):
    """The emulator ended its connection before the answer was whole."""


@dataclass(slots=True)
class Exchange:
    """One request that has reached the model server, and the way back."""

    number: int  #: of the request, from 0
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    keep: bool = True  #: whether the connection takes another request after this one

    async def send(self, data: bytes) -> None:
        """Write bytes as they are. Raises ClientLeft."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            raise ClientLeft from None

    async def answer(self, body: bytes, status: int = 200, content_type: str = JSON, more_head: str = "") -> None:
        """A whole answer."""
        await self.send(
            f"HTTP/1.1 {status} Whatever\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\n{more_head}\r\n".encode("latin-1")
            + body
        )

    async def head(self, content_type: str = EVENTS) -> None:
        """The head of a chunked answer."""
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
        await self.send(head.encode())

    async def chunks(self, pieces: Iterable[bytes]) -> None:
        """Pieces of a chunked answer, each a chunk of its own."""
        for piece in pieces:
            await self.send(b"%x\r\n%b\r\n" % (len(piece), piece))

    async def end(self) -> None:
        """The last chunk."""
        await self.send(b"0\r\n\r\n")

    async def stream(self, pieces: Iterable[bytes], content_type: str = EVENTS) -> None:
        """A whole chunked answer."""
        await self.head(content_type)
        await self.chunks(pieces)
        await self.end()

    async def until_client_left(self) -> None:
        """Until the emulator ends the connection. Raises TimeoutError if it does not."""
        async with asyncio.timeout(PATIENCE):
            while await self._reader.read(65536):
                pass

    def cut(self) -> None:
        """End the connection after what was sent, whether that is a whole answer or not."""
        self.keep = False


#: Answers one request.
Behaviour = Callable[[Exchange], Awaitable[None]]


class Gate:
    """Opened by a test, waited for in a model server."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        """Let everybody through, from now on."""
        with self._lock:
            self._event.set()
            for loop, waiter in self._waiters:
                loop.call_soon_threadsafe(waiter.set)

    async def passed(self) -> None:
        """Until it is open. Raises TimeoutError."""
        waiter = asyncio.Event()
        with self._lock:
            if self._event.is_set():
                return
            self._waiters.append((asyncio.get_running_loop(), waiter))
        async with asyncio.timeout(PATIENCE):
            await waiter.wait()


@dataclass(slots=True)
class ModelServerThread:
    """A running model server, and what has happened there."""

    behaviour: Behaviour
    url: str = ""
    requests: list[Exchange] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)  #: of behaviours, other than ClientLeft
    left: int = 0  #: how often the emulator went away before its answer was whole
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def behave(self, behaviour: Behaviour) -> None:
        """Treat requests like this from now on, and forget those before."""
        self.behaviour = behaviour
        self.requests.clear()
        self.left = 0

    def wait_for_requests(self, count: int) -> None:
        """Until so many requests have arrived."""
        self._wait(lambda: len(self.requests) >= count, f"{count} requests")

    def wait_until_left(self, count: int = 1) -> None:
        """Until the emulator has abandoned so many requests."""
        self._wait(lambda: self.left >= count, f"{count} abandoned requests")

    def note(self, change: Callable[[], None]) -> None:
        """Change something and wake whoever waits for it."""
        with self._changed:
            change()
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), f"waited {PATIENCE:g} s in vain for {what}"

    def note_left(self) -> None:
        """The emulator went away."""
        self.left += 1


@contextmanager
def model_server(behaviour: Behaviour) -> Iterator[ModelServerThread]:
    """A model server that treats every request with `behaviour`; what goes wrong there fails the test."""
    server = ModelServerThread(behaviour)
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    def run() -> None:
        asyncio.run(_serve(server, stop, ready))

    thread = threading.Thread(target=run, name="model-server", daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield server
    finally:
        stop[0]()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert server.failures == []


async def _serve(server: ModelServerThread, stop: list[Callable[[], object]], ready: threading.Event) -> None:
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await _connection(server, reader, writer)
        except (ClientLeft, ConnectionError):  # the latter where it left something unread, or while we wrote
            server.note(server.note_left)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            server.failures.append(error)
        finally:
            connections.discard(task)
            writer.close()

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
    listener = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    ready.set()
    await stopping.wait()
    listener.close()
    for task in connections:
        task.cancel()
    if connections:
        await asyncio.wait(connections)


async def _connection(server: ModelServerThread, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    keep = True
    while keep:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        start, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = start.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        try:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ClientLeft from None
        exchange = Exchange(len(server.requests), method, path, headers, body, reader, writer)
        server.note(lambda exchange=exchange: server.requests.append(exchange))  # type: ignore[misc]
        await server.behaviour(exchange)
        keep = exchange.keep
