"""An answer's body handed over piece by piece, without a task that wakes for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from emulator.inference.http_client import HTTPClient
from emulator.inference.http_connection import HIGH_WATER, Answer, Connection
from emulator.inference.model_server import BrokenAnswer, ModelServerTimeout, hand_over
from tests.inference import CHUNKED, OK, Wire, answering, run, serving
from tests.inference.client import client_of, post, until, whole

END = b"0\r\n\r\n"


class Reader:
    """Takes pieces; `room` of them, and then as many again each time it was asked to make room."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.pieces: list[bytes] = []
        self.room = self.left = room
        self.may_go_on = asyncio.Event()
        self.asked = 0

    def take(self, piece: bytes) -> bool:
        assert self.left > 0, "a piece came before there was room"
        self.pieces.append(piece)
        self.left -= 1
        return self.left > 0

    async def ready(self) -> None:
        self.asked += 1
        await self.may_go_on.wait()
        self.left = self.room

    async def read(self, answer: Answer) -> bytes:
        try:
            await hand_over(answer, self.take, self.ready)
        finally:
            answer.close()
        return b"".join(self.pieces)


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(text), text)


async def handing_over(client: HTTPClient, reader: Reader) -> tuple[asyncio.Task[bytes], Connection]:
    """A body that is being handed over, and its connection; nothing of it has come yet."""
    reading = asyncio.create_task(reader.read(await post(client)))
    (connection,) = client.connections
    assert connection._answer is not None
    await until(lambda: connection._answer is not None and connection._answer.take is not None)
    return reading, connection


async def beginning(wire: Wire) -> None:
    """A server that begins an answer, and leaves the rest to the test."""
    await wire.request()
    await wire.write(CHUNKED)
    await wire.ended()


def test_a_piece_is_handed_over_before_the_call_that_brings_it_returns() -> None:
    async def body() -> None:
        async with serving(beginning) as server, client_of(server) as client:
            reader = Reader()
            reading, connection = await handing_over(client, reader)
            connection.data_received(chunk(b"one") + b"3\r\ntw")
            assert reader.pieces == [b"one", b"tw"]
            connection.data_received(b"o\r\n")
            assert reader.pieces == [b"one", b"tw", b"o"]
            connection.data_received(END)
            assert await reading == b"onetwo"
            assert connection in client.idle

    run(body())


@pytest.mark.parametrize("room", [1, 2, 1_000_000])
def test_pieces_come_in_order_wherever_the_answer_is_torn_and_whether_they_wait_or_not(room: int) -> None:
    text = CHUNKED + b"".join(map(chunk, (b"one", b"two", b"three", b"four"))) + END
    tears = [*([position] for position in range(1, len(text))), list(range(1, len(text))), []]

    async def body() -> None:
        async def script(wire: Wire) -> None:
            while tears:
                await wire.request()
                for start, end in pairwise([0, *tears.pop(), len(text)]):
                    await wire.write(text[start:end])
                    await asyncio.sleep(0)

        async with serving(script) as server, client_of(server) as client:
            while tears:
                reader = Reader(room)
                reader.may_go_on.set()
                assert await reader.read(await post(client)) == b"onetwothreefour"
                assert reader.asked or room > 4
            assert server.accepted == 1

    run(body())


def test_a_reader_that_falls_behind_stops_the_server() -> None:
    async def body() -> None:
        total = 16 * 1024 * 1024

        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            for _ in range(256):
                await wire.write(b"x" * (total // 256))
            await wire.request()
            await wire.write(OK)

        async with serving(script) as server, client_of(server) as client:
            reader = Reader(room=3)
            answer = await post(client)
            (connection,) = client.connections
            reading = asyncio.create_task(reader.read(answer))
            await until(lambda: connection._paused)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert len(reader.pieces) == 3
            assert HIGH_WATER < answer._waiting <= HIGH_WATER + 256 * 1024  # what one read of the socket may add
            assert answer._arrived == answer._waiting + sum(map(len, reader.pieces))
            reader.may_go_on.set()
            assert await reading == b"x" * total
            assert await whole(await post(client)) == b"ok"
            assert server.accepted == 1

    run(body())


def test_what_came_before_the_break_is_handed_over() -> None:
    async def body() -> None:
        for room in (1, 2, 3):
            broken = CHUNKED + chunk(b"one") + chunk(b"two") + b"5\r\nth"
            async with serving(answering(broken)) as server, client_of(server) as client:
                reader = Reader(room)
                reader.may_go_on.set()
                with pytest.raises(BrokenAnswer, match="ended after 8 bytes, before the last chunk"):
                    await reader.read(await post(client))
                assert reader.pieces == [b"one", b"two", b"th"]

    run(body())


def test_a_piece_that_comes_just_as_the_reader_is_woken_is_not_pushed_on_one_that_has_no_room() -> None:
    async def body() -> None:
        async with serving(beginning) as server, client_of(server) as client:
            reader = Reader(room=1)
            reader.may_go_on.set()
            reading, connection = await handing_over(client, reader)
            connection.resume_writing()  # a large request makes its way
            connection.data_received(chunk(b"one"))
            await asyncio.sleep(0)
            connection.data_received(chunk(b"two") + END)
            assert await reading == b"onetwo"

    run(body())


def test_an_error_of_the_reader_ends_the_answer() -> None:
    async def body() -> None:
        async with serving(beginning) as server, client_of(server) as client:
            reader = Reader()

            def take(piece: bytes) -> bool:
                reader.pieces.append(piece)
                raise ZeroDivisionError

            reader.take = take  # type: ignore[method-assign]
            reading, connection = await handing_over(client, reader)
            connection.data_received(chunk(b"one") + chunk(b"two"))
            with pytest.raises(ZeroDivisionError):
                await reading
            assert reader.pieces == [b"one"]
            await server.done.wait()  # the server was left

    run(body())


def test_what_comes_for_a_reader_that_was_cancelled_does_no_harm() -> None:
    async def body() -> None:
        async with serving(beginning) as server, client_of(server) as client:
            reader = Reader(room=2)
            reading, connection = await handing_over(client, reader)
            connection.data_received(chunk(b"one"))
            reading.cancel()
            connection.data_received(chunk(b"two") + chunk(b"three"))  # in the same turn of the event loop
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert b"".join(reader.pieces) in b"onetwo"
            await server.done.wait()

    run(body())


def test_a_server_that_falls_silent_is_given_up_but_a_slow_reader_is_waited_for() -> None:
    async def body() -> None:
        async with serving(beginning) as server, client_of(server, idle_timeout=0.05) as client:
            reader = Reader(room=1)
            reading, connection = await handing_over(client, reader)
            connection.data_received(chunk(b"one"))
            await until(lambda: reader.asked == 1)
            await asyncio.sleep(0.2)  # longer than the time-out
            assert not reading.done()
            reader.may_go_on.set()
            with pytest.raises(ModelServerTimeout, match=r"Nothing more of an answer .* for 0\.05 s"):
                await reading
            await server.done.wait()

    run(body())


def test_an_answer_that_can_only_be_iterated_is_handed_over_too() -> None:
    class Plain:
        status = 200
        headers: dict[str, str] = {}  # noqa: RUF012

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in (b"one", b"two", b"three"):
                yield piece

        def close(self) -> None:
            pass

    async def body() -> None:
        reader = Reader(room=2)
        reader.may_go_on.set()
        await hand_over(Plain(), reader.take, reader.ready)
        assert (reader.pieces, reader.asked) == ([b"one", b"two", b"three"], 1)

    run(body())
