"""The HTTP client against servers that write exactly the bytes of a script."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httptools
import pytest

from emulator.inference.http_client import HIGH_WATER, Answer, HTTPClient
from emulator.inference.model_server import BrokenAnswer, ModelServerError, ModelServerTimeout, ModelServerUnavailable
from tests.inference import CHUNKED, OK, Script, Server, Wire, always, answering, run, serving


@asynccontextmanager
async def client_of(server: Server, host: str = "127.0.0.1", **settings: Any) -> AsyncIterator[HTTPClient]:
    client = HTTPClient(host, server.port, **settings)
    try:
        yield client
    finally:
        await client.aclose()
        assert not client.connections


async def post(client: HTTPClient, body: bytes = b"{}") -> Answer:
    return await client.request("POST", "/v1/x", {"content-type": "application/json"}, body)


async def whole(answer: Answer) -> bytes:
    try:
        return b"".join([piece async for piece in answer])
    finally:
        answer.close()


async def failure_of(exchange: Awaitable[Answer]) -> ModelServerError:
    """The error of an exchange, whether its head or its body breaks."""
    with pytest.raises(ModelServerError) as caught:
        await whole(await exchange)
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a turn of the loop, no time
        await asyncio.sleep(0)


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
                assert answer._arrived - answer._read <= HIGH_WATER + 256 * 1024
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


# Answers that are none


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP/1.1"),
        (b"<html>no head</html>", "not HTTP/1.1"),
        (b"HTTP/1.1 000 Zero\r\n\r\n", "status 0"),
        (b"HTTP/1.1 1000 Thousand\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer-encoding 'gzip, chunked'"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nok", "content-encoding 'br'"),
        (b"HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "another protocol"),
        (CHUNKED + b"2\r\nokay\r\n", "not HTTP/1.1"),
        (CHUNKED + b"zz\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\nContent-Length: 2\r\n\r\nok", "larger than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "ended in the head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 456\r\n\r\n" + b"x" * 123, "ended after 123 of 456 bytes"),
        (CHUNKED + b"5\r\nhello\r\n", "ended after 5 bytes, before the last chunk"),
        (CHUNKED + b"5\r\nhel", "ended after 3 bytes, before the last chunk"),
    ],
)
def test_a_broken_answer_says_what_is_wrong(answer: bytes, words: str) -> None:
    async def body() -> None:
        async with serving(answering(answer)) as server, client_of(server) as client:
            error = await failure_of(post(client))
            assert isinstance(error, BrokenAnswer)
            assert words in str(error)

    run(body())


def test_pieces_before_the_break_are_delivered() -> None:
    async def body() -> None:
        async with serving(answering(CHUNKED + b"5\r\nhello\r\n!")) as server, client_of(server) as client:
            answer = await post(client)
            assert await anext(answer) == b"hello"
            with pytest.raises(BrokenAnswer, match="not HTTP"):
                await anext(answer)

    run(body())


def test_a_body_without_length_that_ends_in_a_reset_is_broken() -> None:
    async def body() -> None:
        read = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
            await read.wait()
            wire.reset()

        async with serving(script) as server, client_of(server) as client:
            answer = await post(client)
            assert await anext(answer) == b"hello"
            read.set()
            with pytest.raises(BrokenAnswer, match=r"ended after 5 bytes$"):
                await anext(answer)

    run(body())


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (CHUNKED + b"0\r\n", b"X: y\r\n"),
        (CHUNKED + b"1;x=", b"y"),
    ],
)
def test_a_head_or_trailer_that_never_ends_is_cut_off(start: bytes, more: bytes) -> None:
    async def body() -> None:
        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.write(start)
            while not wire.reader.at_eof():
                await wire.write(more * 1000)
                await asyncio.sleep(0)

        async with serving(script) as server, client_of(server) as client:
            assert "larger than 65536 bytes" in str(await failure_of(post(client)))
            await server.done.wait()

    run(body())


@pytest.mark.parametrize("name", httptools.parser.errors.__all__)
def test_every_error_of_the_parser_is_a_broken_answer(name: str) -> None:
    class Parser:
        def feed_data(self, data: bytes) -> None:
            raise getattr(httptools.parser.errors, name)("oh")

    async def body() -> None:
        async with serving(always(OK)) as server, client_of(server) as client:
            await whole(await post(client))
            (connection,) = client.connections
            connection._parser = Parser()  # type: ignore[assignment]
            assert isinstance(await failure_of(post(client)), BrokenAnswer)

    run(body())


# Nobody there, or too slow


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_refused_connection_says_by_whom(host: str) -> None:
    async def body() -> None:
        async with serving(always(OK)) as server:
            pass
        error = await failure_of(post(HTTPClient(host, server.port)))
        assert isinstance(error, ModelServerUnavailable)
        assert str(error) == f"Connection refused by {host}:{server.port}"

    run(body())


def test_an_impossible_host_name_is_unavailable() -> None:
    error = asyncio.run(failure_of(post(HTTPClient("a" * 64, 80))))
    assert isinstance(error, ModelServerUnavailable)
    assert str(error).startswith("No address known for aaa")


async def mute(wire: Wire) -> None:
    await wire.ended()


async def stalling(wire: Wire) -> None:
    await wire.request()
    await wire.write(CHUNKED + b"5\r\nhello\r\n")
    await wire.ended()


async def hinting(wire: Wire) -> None:
    await wire.request()
    while not wire.reader.at_eof():
        await wire.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(0.01)  # slower than a time-out could pass unseen, faster than it is long


@pytest.mark.parametrize(
    ("script", "setting", "words"),
    [
        (mute, "answer_timeout", "No answer from the model server at {} within 0.05 s (--model-answer-timeout)"),
        (hinting, "answer_timeout", "No answer from the model server at {} within 0.05 s (--model-answer-timeout)"),
        (
            stalling,
            "idle_timeout",
            "Nothing more of an answer from the model server at {} for 0.05 s (--model-idle-timeout)",
        ),
    ],
)
def test_a_time_out_names_its_limit_and_hangs_up(script: Script, setting: str, words: str) -> None:
    async def body() -> None:
        limits: dict[str, Any] = {setting: 0.05}
        async with serving(script) as server, client_of(server, **limits) as client:
            error = await failure_of(post(client))
            assert isinstance(error, ModelServerTimeout)
            assert str(error) == words.format(client.authority)
            await server.done.wait()

    run(body())


def test_a_connection_that_is_not_made_in_time_names_its_limit() -> None:
    async def body() -> None:
        async with serving(mute) as server, client_of(server, tls=True, connect_timeout=0.05) as client:
            error = await failure_of(post(client))  # TCP is there, TLS never is
            assert isinstance(error, ModelServerTimeout)
            assert str(error) == f"No connection to {client.authority} within 0.05 s (--model-connect-timeout)"
            await server.done.wait()

    run(body())


# Letting go


def test_closing_an_unfinished_answer_hangs_up() -> None:
    async def body() -> None:
        async with serving(stalling) as server, client_of(server) as client:
            answer = await post(client)
            assert await anext(answer) == b"hello"
            answer.close()
            answer.close()
            await server.done.wait()
            with pytest.raises(BrokenAnswer, match="closed before its end"):
                await anext(answer)

    run(body())


@pytest.mark.parametrize("size", [2, 32 * 1024 * 1024])
@pytest.mark.parametrize("tls", [False, True])
def test_cancelling_a_request_hangs_up(size: int, tls: bool) -> None:
    async def body() -> None:
        reached = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.reader.read(1)  # with TLS, the first byte of a handshake that never ends
            reached.set()
            await wire.ended()

        async with serving(script) as server, client_of(server, tls=tls) as client:
            request = asyncio.create_task(post(client, b"x" * size))
            await reached.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await server.done.wait()
            assert not client.idle

    run(body())


def test_cancelling_a_request_spares_the_next_one_on_its_connection() -> None:
    async def body() -> None:
        async with serving(always(OK)) as server, client_of(server) as client:
            request = asyncio.create_task(post(client))
            await until(lambda: bool(client.idle))  # its answer is complete, but it has not been told yet
            assert not request.done()
            request.cancel()
            assert await whole(await post(client)) == b"ok"
            assert request.cancelled()
            assert server.accepted == 1

    run(body())


def test_an_answer_that_came_in_time_counts_even_if_the_loop_was_busy() -> None:
    async def body() -> None:
        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.write(OK)
            time.sleep(0.1)  # noqa: ASYNC251 - the loop is busy: the answer and its time-out are due in one turn
            await wire.ended()

        async with serving(script) as server, client_of(server, answer_timeout=0.05) as client:
            assert await whole(await post(client)) == b"ok"
            assert len(client.idle) == 1

    run(body())


def test_closing_the_client_breaks_what_is_on_its_way() -> None:
    async def body() -> None:
        async with serving(stalling, mute) as server, client_of(server) as client:
            answer = await post(client)
            assert await anext(answer) == b"hello"
            reader = asyncio.ensure_future(failure_of(asyncio.sleep(0, answer)))
            request = asyncio.ensure_future(failure_of(post(client)))
            await until(lambda: server.accepted == 2)
            await client.aclose()
            assert isinstance(await reader, BrokenAnswer)
            assert isinstance(await request, ModelServerError)
            assert isinstance(await failure_of(post(client)), ModelServerUnavailable)

    run(body())


def test_closing_the_client_ends_a_connection_that_is_being_made() -> None:
    async def body() -> None:
        async with serving(mute) as server, client_of(server) as client:
            request = asyncio.ensure_future(failure_of(post(client)))
            await asyncio.sleep(0)  # it has begun to connect
            await client.aclose()
            assert isinstance(await request, ModelServerUnavailable)

    run(body())


def test_a_connection_that_is_lost_before_its_first_request_is_unavailable() -> None:
    async def hang_up(wire: Wire) -> None:
        pass

    async def body() -> None:
        async with serving(hang_up) as server, client_of(server) as client:
            assert isinstance(await failure_of(post(client)), ModelServerUnavailable)
            connection = await client._connect()
            await connection.lost
            assert isinstance(await failure_of(connection.exchange(b"", b"")), ModelServerUnavailable)

    run(body())


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throw-away certificate for localhost, and its key, in one file."""
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


def test_tls_carries_the_same_exchanges(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    text = bytes(range(256)) * 4096 * 4

    async def body() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

        async def script(wire: Wire) -> None:
            for _ in range(2):
                _, body = await wire.request()
                await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await stalling(wire)

        async with serving(script, tls=context) as server, client_of(server, "localhost", tls=True) as client:
            assert await whole(await post(client, text)) == text
            assert await whole(await post(client)) == b"{}"
            answer = await post(client)
            assert await anext(answer) == b"hello"
            answer.close()
            await server.done.wait()
            assert server.accepted == 1

    run(body())


def test_an_untrusted_certificate_is_refused(certificate: Path) -> None:
    async def body() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        async with serving(always(OK), tls=context) as server, client_of(server, tls=True) as client:
            error = await failure_of(post(client))
            assert isinstance(error, ModelServerUnavailable)
            assert str(error) == f"No TLS with {client.authority}: self-signed certificate"

    run(body())


def test_tls_with_a_server_that_speaks_none_is_unavailable() -> None:
    async def body() -> None:
        async def script(wire: Wire) -> None:
            await wire.reader.read(1)
            await wire.write(OK)

        async with serving(script) as server, client_of(server, tls=True) as client:
            assert isinstance(await failure_of(post(client)), ModelServerUnavailable)

    run(body())
