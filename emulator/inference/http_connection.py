"""One connection of the HTTP client, and the answer that is on its way there."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import TYPE_CHECKING

import httptools

from emulator.inference.deadline import Deadline
from emulator.inference.model_server import (
    BrokenAnswer,
    ModelServerError,
    ModelServerTimeout,
    ModelServerUnavailable,
    Ready,
    Take,
)

if TYPE_CHECKING:
    from emulator.inference.http_client import HTTPClient

HEAD_LIMIT = 64 * 1024  # of an answer's head with the 1xx heads before it, or of its trailer
HIGH_WATER = 256 * 1024  # so much of a body waits for its reader, and the socket is no longer read
LOW_WATER = 64 * 1024  # so little waits, and it is read again
SMALL_BODY = 128 * 1024  # travels in one write with its head
UPLOAD_PIECE = 256 * 1024
SEND_BUFFER = 512 * 1024
NOTHING = memoryview(b"")


class Answer:
    """An answer whose head has arrived and whose body is still on its way: a `ModelAnswer`."""

    __slots__ = (
        *("_arrived", "_connection", "_pieces", "_waiter", "_waiting"),
        *("complete", "error", "headers", "status", "take"),
    )

    def __init__(self, connection: Connection) -> None:
        self.status = 0  # until the head is here
        self.headers: dict[str, str] = {}
        self.complete = False
        self.error: ModelServerError | None = None
        self.take: Take | None = None  # whom pieces are handed to as they arrive; none waits then
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._arrived = 0  # bytes of the body,
        self._waiting = 0  # and those of `_pieces`
        self._waiter: asyncio.Future[bool] | None = None

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self.error is not None:
                raise self.error
            if self.complete:
                raise StopAsyncIteration
            await self.wait(self._connection.client.idle_timeout)
        return self._next()

    async def hand_over(self, take: Take, ready: Ready) -> None:
        """Have `take` called with each piece: as long as none has to wait, from within the call that brings it."""
        may_follow = True
        while True:
            if self._pieces:
                if not may_follow:
                    await ready()
                may_follow = take(self._next())
            elif self.error is not None:
                raise self.error
            elif self.complete:
                return
            elif not may_follow:
                await ready()
                may_follow = True
            else:
                self.take = take
                try:
                    may_follow = await self.wait(self._connection.client.idle_timeout)
                finally:
                    self.take = None

    def _next(self) -> bytes:
        """The next piece of the body; one is there."""
        piece = self._pieces.popleft()
        self._waiting -= len(piece)
        if not self.complete and self._waiting <= LOW_WATER:
            self._connection.read_on()
        return piece

    def close(self) -> None:
        """Let go; an answer that is not complete ends its connection, so that the server stops. Never raises."""
        self._pieces.clear()
        if not self.complete and self.error is None:
            self._connection.end(BrokenAnswer("The answer was closed before its end"))

    def add(self, piece: bytes) -> bool:
        """Take a piece of the body in; whether more waits for the reader now than should."""
        self._arrived += len(piece)
        if self.take is None:
            self._pieces.append(piece)
            self._waiting += len(piece)
            return self._waiting > HIGH_WATER
        try:
            if not self.take(piece):
                self._stop_handing_over(None)
        except Exception as error:
            self._stop_handing_over(error)
        return False

    def _stop_handing_over(self, error: Exception | None) -> None:
        """Let `hand_over` go on: the next piece has to wait, or there is no next one for an error of `take`'s."""
        self.take = None
        if self._waiter is None or self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(False)
        else:
            self._waiter.set_exception(error)

    def truncated(self) -> BrokenAnswer:
        """The error of an answer that was not complete when its connection ended."""
        length, chunked = self.headers.get("content-length"), "transfer-encoding" in self.headers
        amount = f"{self._arrived} of {length} bytes" if length else f"{self._arrived} bytes"
        return BrokenAnswer(f"The connection ended after {amount}{', before the last chunk' if chunked else ''}")

    def wake(self) -> None:
        """Something happened: let whoever waits look. What comes until then is kept for it."""
        if self._waiter is not None and not self._waiter.done():
            self.take = None
            self._waiter.set_result(True)

    async def wait(self, seconds: float) -> bool:
        """Until something happens; `seconds` without end the answer with a ModelServerTimeout.

        False if a piece was handed on after which the next one has to wait.
        """
        self._waiter = self._connection.loop.create_future()
        self._connection.deadline.set(seconds)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def time_out(self, seconds: float) -> None:
        """End the answer, if somebody still waits for it."""
        if self._waiter is None or self._waiter.done():
            return  # something came in the same turn of the event loop
        where = f"the model server at {self._connection.client.authority}"
        if self.status:
            text = f"Nothing more of an answer from {where} for {seconds:g} s (--model-idle-timeout)"
        else:
            text = f"No answer from {where} within {seconds:g} s (--model-answer-timeout)"
        self._connection.end(ModelServerTimeout(text))


class Connection(asyncio.Protocol):
    """One connection, and the answer that is on its way there, if any."""

    __slots__ = (
        *("_answer", "_headers", "_parser", "_paused", "_reusable", "_transport", "_unaccounted", "_upload"),
        *("_writable", "client", "deadline", "loop", "lost"),
    )
    _transport: asyncio.Transport

    def __init__(self, client: HTTPClient, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self.loop = loop
        self.lost: asyncio.Future[None] = loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._headers: dict[str, str] = {}
        self._unaccounted = 0  # bytes received since the request, or since the last piece of the answer's body
        self._reusable = False
        self._paused = False
        self._upload = NOTHING  # what is left of a large request body
        self._writable = True
        self.deadline = Deadline(loop, self._time_out)

    async def exchange(self, head: bytes, body: bytes) -> Answer:
        """Send a request and wait for the head of its answer.

        ModelServerUnavailable is raised only if the connection ended before one byte of an answer came.
        """
        answer = self._answer = Answer(self)
        self._unaccounted = 0
        if self._transport.is_closing():
            self._ended_by_server(None)
        elif len(body) <= SMALL_BODY:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._upload = memoryview(body)
            self._continue_upload()
        try:
            while not answer.status and answer.error is None:
                await answer.wait(self.client.answer_timeout)
        except BaseException:
            answer.close()  # not end(): a complete answer's connection may serve another request by now
            raise
        if not answer.status and answer.error is not None:
            raise answer.error
        return answer

    def end(self, error: ModelServerError | None = None) -> None:
        """End the connection at once, and with it an answer that is not complete: in `error`."""
        answer, self._answer = self._answer, None
        self._upload = NOTHING
        self.deadline.cancel()
        self.client.idle.pop(self, None)
        self._transport.abort()
        if answer is not None:
            if not answer.complete:
                answer.error = error
            answer.wake()

    def _time_out(self, seconds: float) -> None:
        if self._answer is not None:
            self._answer.time_out(seconds)

    def read_on(self) -> None:
        """Read the socket again, if it was left unread because the answer's reader had fallen behind."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _continue_upload(self) -> None:
        while self._upload and self._writable and not self._transport.is_closing():
            piece, self._upload = self._upload[:UPLOAD_PIECE], self._upload[UPLOAD_PIECE:]
            self._transport.write(piece)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport
        if (sock := transport.get_extra_info("socket")) is not None:
            # The system's own choice takes a body of 64 KB in two steps.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.client.connections.add(self)
        if self.client.closed:
            self.end()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._continue_upload()
        if self._answer is not None:
            self._answer.wake()  # a large request makes its way: the time-out starts anew

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            self.end()  # nobody asked for anything
            return
        self._unaccounted += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.end(_broken(error))
            return
        if answer.complete:
            self._keep_or_end()
        elif self._unaccounted > HEAD_LIMIT:
            self.end(BrokenAnswer(f"The head or trailer of the answer is larger than {HEAD_LIMIT} bytes"))
        elif answer.take is not None:  # who waits has got what came
            self.deadline.set(self.client.idle_timeout)
            return
        if answer.status:
            answer.wake()

    def eof_received(self) -> None:
        self._ended_by_server(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended_by_server(exc)
        self.client.connections.discard(self)
        self.lost.set_result(None)

    def _keep_or_end(self) -> None:
        unsent = self._upload or self._transport.get_write_buffer_size()
        if unsent or not self._reusable or len(self.client.idle) >= self.client.max_idle:
            self.end()
        else:
            self._answer = None
            self.read_on()
            self.client.idle[self] = self.loop.time()

    def _ended_by_server(self, exc: Exception | None) -> None:
        answer = self._answer
        error: ModelServerError | None = None
        if answer is None:
            pass
        elif not answer.status and not self._unaccounted:
            error = ModelServerUnavailable(f"{self.client.authority} closed the connection before it answered")
        elif not answer.status:
            error = BrokenAnswer("The connection ended in the head of the answer")
        elif exc is None and not answer.headers.keys() & {"content-length", "transfer-encoding"}:
            answer.complete = True  # its body ends where the connection does
        else:
            error = answer.truncated()
        self.end(error)

    # Called by the parser

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.complete:
            raise BrokenAnswer("More came after the end of the answer")
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        if self._answer is None or 100 <= status < 200:
            return  # 1xx: the head that counts is still to come
        headers, self._headers = self._headers, {}  # what comes after it, the trailer, is of no interest
        if self._unaccounted > HEAD_LIMIT and sum(map(len, (*headers, *headers.values()))) > HEAD_LIMIT:
            raise BrokenAnswer(f"The head of the answer is larger than {HEAD_LIMIT} bytes")
        if not 100 <= status < 600:  # no server could pass it on
            raise BrokenAnswer(f"The answer has the status {status}")
        if headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
            raise BrokenAnswer(f"The answer came with content-encoding {headers['content-encoding'][:40]!r}, unasked")
        if headers.get("transfer-encoding", "chunked").lower() != "chunked":
            raise BrokenAnswer(f"The answer came with transfer-encoding {headers['transfer-encoding'][:40]!r}")
        self._unaccounted = 0
        self._answer.headers = headers
        self._answer.status = status

    def on_body(self, piece: bytes) -> None:
        self._unaccounted = 0
        if self._answer is not None and self._answer.add(piece) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._answer.complete = True
            self._reusable = self._parser.should_keep_alive()


def _broken(error: Exception) -> BrokenAnswer:
    if isinstance(error.__context__, BrokenAnswer):  # raised by one of our callbacks
        return error.__context__
    if isinstance(error, httptools.HttpParserUpgrade):
        return BrokenAnswer("The model server switched to another protocol")
    return BrokenAnswer(f"The answer is not HTTP/1.1: {error}")
