"""A model server in a process of its own, quick enough never to be what a load test waits for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from tests.load.conversation import ModelAnswer, model_answer
from tests.model_servers import PATIENCE

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class _ModelConnection(asyncio.Protocol):
    """One connection of an emulator's."""

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, waiting: list[_ModelConnection]) -> None:
        self._loop = loop
        self._waiting = waiting  # streams that go on together, all connections' list
        self._received = bytearray()
        self._rest: Iterator[bytes] = iter(())
        self._pace = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest = iter(())

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        length = _LENGTH.search(self._received, 0, end)
        assert length is not None
        body = bytes(self._received[end : end + int(length[1])])
        if len(body) == int(length[1]):
            self._received.clear()  # the next request comes after this one's answer
            self._answer(model_answer(body))

    def _answer(self, answer: ModelAnswer) -> None:
        if not answer.is_stream:
            self._transport.write(_WHOLE % len(answer.pieces[0]) + answer.pieces[0])
            return
        chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in answer.pieces]
        chunks[-1] += b"0\r\n\r\n"
        if not answer.pace:
            self._transport.writelines([_CHUNKED, *chunks])
            return
        self._transport.write(_CHUNKED + chunks[0])
        self._rest, self._pace = iter(chunks[1:]), answer.pace
        if not answer.together:
            self._loop.call_later(self._pace, self._go_on)
            return
        self._waiting.append(self)
        if len(self._waiting) == answer.together:
            for place, each in enumerate(self._waiting):  # evenly, not all in the same moment
                self._loop.call_later(each._pace * (1 + place / answer.together), each._go_on)
            self._waiting.clear()

    def _go_on(self) -> None:
        for chunk in self._rest:
            self._transport.write(chunk)
            self._loop.call_later(self._pace, self._go_on)
            return


async def _serve(ready: Connection) -> None:
    loop = asyncio.get_running_loop()
    waiting: list[_ModelConnection] = []
    server = await loop.create_server(lambda: _ModelConnection(loop, waiting), "127.0.0.1", 0, backlog=4096)
    ready.send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await server.serve_forever()


def _run(ready: Connection) -> None:
    uvloop.run(_serve(ready))


@contextmanager
def model_process() -> Iterator[str]:
    """The URL of a model server that runs while the block does."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender,), daemon=True)
    process.start()
    sender.close()
    try:
        assert receiver.poll(PATIENCE)
        url: str = receiver.recv()
        yield url
        assert process.is_alive()
    finally:
        process.kill()
        process.join()
        receiver.close()
