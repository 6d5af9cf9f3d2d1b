"""The HTTP client against servers that write exactly the bytes of a script."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from emulator.inference.http_client import HTTPClient
from emulator.inference.http_connection import HIGH_WATER
from emulator.inference.model_server import BrokenAnswer, ModelServerTimeout, ModelServerUnavailable
from tests.inference import CHUNKED, OK, Wire, always, answering, run, serving
from tests.inference.client import client_of, failure_of, post, until, whole


def test_status_headers_and_body_arrive() -> None:
    async def body() -> None:
        text = (
            b"HTTP/1.1 418 I'm\r\nX-A: 1\r\nx-a: 2\r\nEmpty:\r\nContent-Type: text/\xe9\r\nContent-Length: 3\r\n\r\nabc"
        )
        async with serving(answering(text)) as server, client_of(server) as client:
            answer = await post(client)
            assert answer.status == 418
            assert answer.headers == {"x-a": "1, 2", "empty": "", "content-type": "text/é", "content-length": "3"}
            assert await whole(answer) == b"abc"

    run(body())


def test_a_request_is_written_as_http_1_1() -> None:
    async def body() -> None:
        seen = []

        async def script(wire: Wire) -> None:
            for _ in range(2):
                seen.append(await wire.request())
                await wire.write(OK)

        async with serving(script) as server, client_of(server) as client:
            await whole(await client.request("POST", "/a?b", {"accept": "*/*"}, b"body"))
            await whole(await client.request("GET", "/", {}))
            host = f"host: 127.0.0.1:{server.port}\r\naccept-encoding: identity\r\n".encode()
            assert seen == [
                (b"POST /a?b HTTP/1.1\r\n" + host + b"accept: */*\r\ncontent-length: 4\r\n\r\n", b"body"),
                (b"GET / HTTP/1.1\r\n" + host + b"\r\n", b""),
            ]

    run(body())


@pytest.mark.parametrize(
    ("target", "value"), [("/ HTTP/1.1\r\nx: y", "1"), ("/", "1\r\nx: y"), ("/", "1\n"), ("/", "\r")]
)
def test_a_line_break_in_a_head_is_refused(target: str, value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        asyncio.run(HTTPClient("127.0.0.1", 1).request("GET", target, {"a": value}))


# The life of connections


@pytest.mark.parametrize(
    ("answer", "connections"),
    [
        (OK, 1),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 1),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 1),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 3),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 3),
        (OK + b"garbage", 3),
        (OK + OK, 3),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", 3),
    ],
)
def test_a_connection_is_used_again_only_if_the_answer_allows_it(answer: bytes, connections: int) -> None:
    async def body() -> None:
        async with serving(always(answer)) as server, client_of(server) as client:
            for _ in range(3):
                assert await whole(await post(client)) == (b"ok" if b" 200 " in answer else b"")
            assert server.accepted == connections

    run(body())


def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    async def body() -> None:
        read = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.write(OK)
            await read.wait()
            await wire.write(OK)
            await wire.ended()

        async with serving(script, always(OK)) as server, client_of(server) as client:
            await whole(await post(client))
            read.set()
            await server.done.wait()
            assert await whole(await post(client)) == b"ok"
            assert server.accepted == 2

    run(body())


@pytest.mark.parametrize("reset", [False, True])
def test_a_kept_connection_that_dies_as_the_request_leaves_is_replaced(reset: bool) -> None:
    async def body() -> None:
        async def script(wire: Wire) -> None:
            await answering(OK)(wire)
            await wire.head()
            if reset:
                wire.reset()

        async with serving(script, always(OK)) as server, client_of(server) as client:
            await whole(await post(client))
            assert await whole(await post(client, b"x" * 100_000)) == b"ok"
            assert server.accepted == 2

    run(body())


def test_a_request_is_sent_again_once_only() -> None:
    async def body() -> None:
        async def silent(wire: Wire) -> None:
            await wire.request()

        async def script(wire: Wire) -> None:
            await answering(OK)(wire)
            await wire.request()

        async with serving(script, silent) as server, client_of(server) as client:
            await whole(await post(client))
            error = await failure_of(post(client))  # the kept connection, then a new one
            assert isinstance(error, ModelServerUnavailable)
            assert str(error) == f"127.0.0.1:{server.port} closed the connection before it answered"
            assert server.accepted == 2
            assert isinstance(await failure_of(post(client)), ModelServerUnavailable)  # a new one only
            assert server.accepted == 3

    run(body())


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_a_request_is_not_sent_again_once_a_byte_of_an_answer_came(first: bytes) -> None:
    async def body() -> None:
        async with serving(answering(OK, first)) as server, client_of(server) as client:
            await whole(await post(client))
            error = await failure_of(post(client))
            assert isinstance(error, BrokenAnswer)
            assert str(error) == "The connection ended in the head of the answer"
            assert server.accepted == 1

    run(body())


def test_an_idle_connection_that_the_server_closes_is_forgotten() -> None:
    async def body() -> None:
        async with serving(answering(OK)) as server, client_of(server) as client:
            await whole(await post(client))
            await until(lambda: not client.connections)
            assert not client.idle

    run(body())


def test_a_connection_idle_for_too_long_is_not_used_again() -> None:
    async def body() -> None:
        async with serving(always(OK)) as server, client_of(server, keep_alive=0) as client:
            for _ in range(3):
                await whole(await post(client))
            assert server.accepted == 3

    run(body())


def test_two_hundred_requests_at_once_share_the_kept_connections() -> None:
    async def body() -> None:
        async def script(wire: Wire) -> None:
            while True:
                _, text = await wire.request()
                await wire.write(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text))

        async def ask(client: HTTPClient, text: bytes) -> bool:
            return await whole(await post(client, text)) == text

        async with serving(script) as server, client_of(server, max_idle=150) as client:
            for _ in range(5):
                assert all(await asyncio.gather(*(ask(client, b"request %d" % n) for n in range(200))))
                assert len(client.idle) == 150
            assert server.accepted == 200 + 4 * 50

    run(body())


# The body


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 11\r\n\r\nhello world",
    "chunked": CHUNKED + b'5;a="b;c"\r\nhello\r\n006\r\n world\r\n0\r\nTrailer: 1\r\nX: 2\r\n\r\n',
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    + OK[:-2].replace(b"2\r", b"11\r"),
    "until close": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello world",
}
ANSWERS["interim"] += b"hello world"


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_may_be_torn_at_any_byte(name: str) -> None:
    text = ANSWERS[name]
    tears = [*([position] for position in range(1, len(text))), list(range(1, len(text)))]

    async def body() -> None:
        async def script(wire: Wire) -> None:
            while tears:
                await wire.request()
                cuts = [0, *tears.pop(), len(text)]
                for start, end in pairwise(cuts):
                    await wire.write(text[start:end])
                    for _ in range(3):
                        await asyncio.sleep(0)  # the client, in this very loop, reads each part for itself
                if name == "until close":
                    return

        async with serving(script) as server, client_of(server) as client:
            while tears:
                answer = await post(client)
                assert await whole(answer) == b"hello world"
                assert not {"trailer", "link"} & set(answer.headers)
            assert server.accepted == (len(text) if name == "until close" else 1)

    run(body())


def test_pieces_are_the_chunks_as_they_were_sent() -> None:
    async def body() -> None:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(text), text) for text in (b"one", b"two", b"three"))
        async with serving(answering(CHUNKED + chunks + b"0\r\n\r\n")) as server, client_of(server) as client:
            assert [piece async for piece in await post(client)] == [b"one", b"two", b"three"]

    run(body())


def test_a_piece_is_there_before_the_next_one_is_sent() -> None:
    async def body() -> None:
        read = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.write(CHUNKED)
            for number in range(10_000):
                await wire.write(b"4\r\n%04d\r\n" % number)
                await read.wait()
                read.clear()
            await wire.write(b"0\r\n\r\n")

        async with serving(script) as server, client_of(server) as client:
            number = 0
            async for piece in await post(client):
                assert piece == b"%04d" % number
                number += 1
                read.set()
            assert number == 10_000

    run(body())


def test_32_mebibytes_go_up_and_come_down() -> None:
    text = bytes(range(256)) * (32 * 4096)

    async def body() -> None:
        async def script(wire: Wire) -> None:
            for _ in range(2):
                _, body = await wire.request()
                await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        async with serving(script) as server, client_of(server) as client:
            for _ in range(2):
                assert await whole(await post(client, text)) == text
            assert server.accepted == 1

    run(body())


def test_a_slow_reader_stops_the_server() -> None:
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
            answer = await post(client)
            (connection,) = client.connections
            await until(lambda: connection._paused)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert HIGH_WATER < answer._arrived <= HIGH_WATER + 256 * 1024  # what one read of the socket may add
            read = 0
            async for piece in answer:
                read += len(piece)
                assert answer._waiting <= HIGH_WATER + 256 * 1024
            assert read == total
            assert await whole(await post(client)) == b"ok"
            assert server.accepted == 1

    run(body())


def test_a_connection_serves_on_while_its_last_answer_is_still_unread() -> None:
    async def body() -> None:
        text = b"x" * (HIGH_WATER + 1)  # its last byte stops the reading
        large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text
        async with serving(answering(large, OK)) as server, client_of(server) as client:
            unread = await post(client)
            await until(lambda: bool(client.idle))
            assert await whole(await post(client)) == b"ok"
            assert await whole(unread) == text
            assert server.accepted == 1

    run(body())


# Large requests


def test_a_large_request_may_take_longer_than_the_answer_time_out() -> None:
    async def body() -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            for _ in range(8):
                await wire.reader.readexactly(4 * 1024 * 1024)
                await asyncio.sleep(0.1)
            await wire.write(OK)

        async with serving(script) as server, client_of(server, answer_timeout=0.5) as client:
            assert await whole(await post(client, b"x" * 32 * 1024 * 1024)) == b"ok"

    run(body())


@pytest.mark.parametrize("hang_up", [False, True])
def test_an_answer_is_heard_before_the_whole_request_is_sent(hang_up: bool) -> None:
    async def body() -> None:
        async def script(wire: Wire) -> None:
            await wire.head()
            await wire.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
            if not hang_up:
                await wire.ended()

        async with serving(script, always(OK)) as server, client_of(server) as client:
            answer = await post(client, b"x" * 32 * 1024 * 1024)
            assert (answer.status, await whole(answer)) == (413, b"large")
            await server.done.wait()
            assert await whole(await post(client)) == b"ok"
            assert server.accepted == 2

    run(body())


def test_a_server_that_does_not_read_is_not_sent_more_than_fits() -> None:
    async def body() -> None:
        stop = asyncio.Event()

        async def script(wire: Wire) -> None:
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await stop.wait()

        async with serving(script) as server, client_of(server, answer_timeout=0.1) as client:
            request = asyncio.create_task(post(client, b"x" * 32 * 1024 * 1024))
            await until(lambda: bool(client.connections) and not next(iter(client.connections))._writable)
            (connection,) = client.connections
            assert connection._transport.get_write_buffer_size() <= 512 * 1024
            assert isinstance(await failure_of(request), ModelServerTimeout)
            stop.set()

    run(body())
