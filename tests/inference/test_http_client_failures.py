"""The HTTP client against servers that fail it: broken answers, nobody there, too slow, letting go."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httptools
import pytest

from emulator.inference.http_client import HTTPClient
from emulator.inference.model_server import BrokenAnswer, ModelServerError, ModelServerTimeout, ModelServerUnavailable
from tests.inference import CHUNKED, OK, Script, Wire, always, answering, run, serving
from tests.inference.client import client_of, failure_of, post, until, whole

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
