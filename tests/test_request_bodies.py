"""Request bodies, small and large, as they stand on the wire: what is taken in, and what is refused before it is."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from emulator.server import Server
from tests.conftest import JOB_ARN
from tests.model_servers import PATIENCE, Exchange, ModelServerThread, model_server
from tests.raw_client import (
    CHAT,
    COMPLETE,
    SAMPLE,
    STREAM,
    RawClient,
    Reply,
    check_error,
    headers_of,
)
from tests.rig import emulator_before

SAMPLING = [SAMPLE, STREAM, CHAT]
LIMIT = 1 << 20


async def accept(exchange: Exchange) -> None:
    await exchange.answer(b"{}")


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServerThread]:
    with model_server(accept) as model:
        yield model


@pytest.fixture(scope="module")
def emulator(model: ModelServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = tmp_path_factory.mktemp("bodies") / "trajectories.db"
    with emulator_before(model, database, max_request_bytes=LIMIT) as server:
        yield server


@pytest.fixture
def client(emulator: Server) -> Iterator[RawClient]:
    with RawClient(emulator.url, JOB_ARN) as client:
        yield client


@contextmanager
def raw_connection(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=PATIENCE) as connection:
        yield connection


def head(path: str, *lines: str) -> bytes:
    fixed = [f"POST {path} HTTP/1.1", "Host: localhost", f"X-Amzn-SageMaker-Job-Arn: {JOB_ARN}"]
    return "\r\n".join([*fixed, "X-Amzn-SageMaker-Trajectory-Id: raw", *lines, "", ""]).encode()


def read_reply(connection: socket.socket) -> Reply:
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return Reply(response.status, headers_of(response), response.read())
    finally:
        response.close()


@pytest.mark.parametrize("path", [*SAMPLING, COMPLETE])
@pytest.mark.parametrize("more", [[], ["Expect: 100-continue"]], ids=["", "expect"])
def test_a_body_beyond_the_limit_is_refused_before_it_is_sent(emulator: Server, path: str, more: list[str]) -> None:
    with raw_connection(emulator) as connection:
        connection.sendall(head(path, f"Content-Length: {1 << 40}", *more))
        message = check_error(read_reply(connection), 400, "ValidationException", openai=path == CHAT)
    assert str(LIMIT) in message
    assert "--max-request-bytes" in message


def test_a_body_of_unknown_length_is_refused_once_it_is_beyond_the_limit(emulator: Server) -> None:
    with raw_connection(emulator) as connection:
        connection.sendall(head(SAMPLE, "Transfer-Encoding: chunked"))
        for _ in range(2):  # the second may already meet an answer, but is taken in all the same
            connection.sendall(b"%x\r\n" % LIMIT + b"x" * LIMIT + b"\r\n")
        check_error(read_reply(connection), 400, "ValidationException")


def test_a_body_of_just_the_limit_works(client: RawClient) -> None:
    assert client.sample("limit", b"x" * LIMIT).status == 200
    check_error(client.sample("limit", b"x" * (LIMIT + 1)), 400, "ValidationException")
    assert client.sample("limit", b"x" * LIMIT).status == 200  # on the same connection


def test_a_body_in_chunks_is_put_together(emulator: Server, model: ModelServerThread) -> None:
    with raw_connection(emulator) as connection:
        connection.sendall(head(SAMPLE, "Transfer-Encoding: chunked"))
        for piece in (b"one", b"two", b"three"):
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        assert read_reply(connection).status == 200
    assert model.requests[-1].body == b"onetwothree"


@pytest.mark.parametrize("chunks", [1, 2, 50])
def test_a_body_in_chunks_is_refused_as_soon_as_it_is_too_large(emulator: Server, chunks: int) -> None:
    piece = b"x" * (LIMIT // chunks + 1)
    with raw_connection(emulator) as connection:
        connection.sendall(head(SAMPLE, "Transfer-Encoding: chunked"))
        connection.sendall((b"%x\r\n%b\r\n" % (len(piece), piece)) * chunks + b"0\r\n\r\n")
        check_error(read_reply(connection), 400, "ValidationException")


def test_requests_that_are_sent_before_the_answer_came_are_answered_in_order(emulator: Server) -> None:
    with raw_connection(emulator) as connection:
        complete = head(COMPLETE, "Content-Length: 2") + b"{}"
        connection.sendall(complete + head("/nowhere", "Content-Length: 0") + head(SAMPLE, "Content-Length: 2") + b"{}")
        received = b""
        while received.count(b"HTTP/1.1 ") < 3:
            received += connection.recv(65536)
    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"400", b"404", b"200"]


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00" * 20, b"GET\r\n\r\n", b"POST /sample HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_refused_as_other_requests_are(emulator: Server, garbage: bytes) -> None:
    with raw_connection(emulator) as connection:
        connection.sendall(garbage)
        assert check_error(read_reply(connection), 400, "ValidationException") == "Invalid HTTP request received."


def test_a_head_that_never_ends_is_cut_off(emulator: Server) -> None:
    with raw_connection(emulator) as connection:
        connection.sendall(b"POST /sample HTTP/1.1\r\nhost: x\r\nx-much: ")
        with contextlib.suppress(ConnectionError):  # it hangs up on us
            for _ in range(1024):
                connection.sendall(b"x" * 16_384)
        message = check_error(read_reply(connection), 400, "ValidationException")
    assert message == "The head of the request is larger than 65536 bytes"
