"""model_server, byte by byte."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.bench.native_programs import ENVIRONMENT, ModelServerProcess, running_model_server

Server = ModelServerProcess
STREAM = b'{"model":"bench","stream":true}'


def request(body: bytes = b"{}", method: str = "POST", path: str = "/v1/chat/completions", more: str = "") -> bytes:
    """A raw request."""
    head = f"{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def read(connection: socket.socket) -> tuple[int, bytes]:
    """An answer's status and body; nothing may follow it."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read()


def ask(server: Server, raw: bytes) -> tuple[int, bytes]:
    """Send bytes over a connection of their own and read the answer."""
    with server.connect() as connection:
        connection.sendall(raw)
        return read(connection)


def put(server: Server, path: str) -> int:
    """Change a setting; says the status."""
    return ask(server, request(b"", "PUT", path))[0]


def chunks_of(raw: bytes) -> Iterator[bytes]:
    """The HTTP chunks after a head."""
    at = raw.index(b"\r\n\r\n") + 4
    while True:
        start = raw.index(b"\r\n", at) + 2
        length = int(raw[at:start], 16)
        at = start + length + 2
        assert raw[at - 2 : at] == b"\r\n"
        if length == 0:
            assert at == len(raw)
            return
        yield raw[start : start + length]


def times_in(body: bytes) -> list[int]:
    """When the events of a whole stream were written."""
    *events, done, end = body.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    contents = [json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]["content"] for event in events]
    assert {content[0] for content in contents} == {"t"}
    return [int(content[1:]) for content in contents]


def test_a_completion_is_one_of_openai(model_server_process: Server) -> None:
    status, body = ask(model_server_process, request(b'{"stream":false,"stream_options":null}'))
    completion = ChatCompletion.model_validate_json(body, strict=True)
    assert (status, completion.model, completion.choices[0].finish_reason) == (200, "bench", "stop")
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert 1400 < len(body) < 1600


def test_a_stream_is_64_events_that_say_when_they_were_written(model_server_process: Server) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    with model_server_process.connect() as connection:
        connection.sendall(request(STREAM, more="connection: close\r\n"))
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert raw.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    chunks = list(chunks_of(raw))
    assert len(chunks) == 65
    events = [
        ChatCompletionChunk.model_validate_json(chunk.removeprefix(b"data: ").removesuffix(b"\n\n"), strict=True)
        for chunk in chunks[:-1]
    ]
    assert [event.choices[0].finish_reason for event in events] == [None] * 63 + ["stop"]
    assert [event.choices[0].delta.role for event in events] == ["assistant"] + [None] * 63
    times = times_in(b"".join(chunks))
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= after


def test_paced_events_are_never_early(model_server_process: Server) -> None:
    assert put(model_server_process, "/interval/3000") == put(model_server_process, "/chunks/6") == 200
    times = times_in(ask(model_server_process, request(STREAM))[1])
    assert len(times) == 6
    assert all(time >= times[0] + number * 3_000_000 * 0.9 for number, time in enumerate(times))
    assert put(model_server_process, "/interval/0") == 200
    assert len(times_in(ask(model_server_process, request(STREAM))[1])) == 6


@pytest.mark.parametrize(
    ("body", "streams"),
    [
        (b'{"stream":true}', True),
        (b'{"stream": true, "n": 1}', True),
        (b'{"stream":null,"options":{"stream":true}}', True),
        (b'{"stream":false}', False),
        (b'{"stream_options":true}', False),
        (b'{"content":"\\"stream\\":true"}', False),
        (b'{"stream":tru', False),
        (b'{"stream":', False),
        (b"", False),
    ],
)
def test_the_body_asks_for_a_stream_wherever_it_is_split(
    model_server_process: Server, body: bytes, streams: bool
) -> None:
    assert put(model_server_process, "/chunks/1") == 200
    head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    sizes = range(1, len(body) + 1)
    splits = [[body[:size], body[size:]] for size in sizes] + [
        [body[i : i + size] for i in range(0, len(body), size)] for size in sizes
    ]
    with model_server_process.connect() as connection:
        for pieces in [[body], *splits]:
            chunked = b"".join(b"%x;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
            connection.sendall(head + chunked + b"0\r\nx-trailer: 1\r\n\r\n")
            status, answer = read(connection)
            assert status == 200
            assert answer.startswith(b"data: ") is streams, pieces


def test_a_request_may_come_byte_by_byte(model_server_process: Server) -> None:
    with model_server_process.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for raw in (request(STREAM), request(b"{}"), request(b"", "GET", "/health")):
            for byte in raw:
                connection.sendall(bytes([byte]))
            assert read(connection)[0] == 200


@pytest.mark.parametrize("interval", [0, 500])
def test_requests_in_one_piece_are_answered_in_order(model_server_process: Server, interval: int) -> None:
    put(model_server_process, f"/interval/{interval}")
    put(model_server_process, "/chunks/3")
    raw = request(STREAM) + request(b"{}") + request(b"", "GET", "/health") + request(STREAM)
    with model_server_process.connect() as connection:
        connection.sendall(raw * 20 + request(more="connection: close\r\n"))
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    kinds = {b"text/event-stream": "s", b"application/json\r\ncontent-length: 2\r": "h", b"application/json": "c"}
    order = [
        next(kind for start, kind in kinds.items() if piece.startswith(start))
        for piece in answers.split(b"HTTP/1.1 200 OK\r\ncontent-type: ")[1:]
    ]
    assert "".join(order) == "schs" * 20 + "c"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_megabyte_is_read(model_server_process: Server, chunked: bool) -> None:
    body = b'{"messages":"' + b"x" * 2**20 + b'","stream":true}'
    raw = request(body)
    if chunked:
        raw = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert len(times_in(ask(model_server_process, raw)[1])) == 64


def test_what_it_knows_of_models_and_health(model_server_process: Server) -> None:
    status, body = ask(model_server_process, request(b"", "GET", "/v1/models"))
    models: dict[str, Any] = json.loads(body)
    assert (status, models["object"], [model["id"] for model in models["data"]]) == (200, "list", ["bench"])
    for path in ("/health", "/", "/" + "x" * 1000):
        assert ask(model_server_process, request(b"", "GET", path)) == (200, b"{}")


@pytest.mark.parametrize("path", ["/interval/-1", "/interval/", "/interval/3600000001", "/chunks/0", "/chunks/1e3"])
def test_a_wrong_setting_is_refused_and_changes_nothing(model_server_process: Server, path: str) -> None:
    status, body = ask(model_server_process, request(b"", "PUT", path))
    assert status == 400
    assert "/chunks/N 1 to 1000000" in json.loads(body)["error"]["message"]
    assert len(times_in(ask(model_server_process, request(STREAM))[1])) == 64


def test_what_it_does_not_know_is_refused(model_server_process: Server) -> None:
    assert ask(model_server_process, request(b"", "PUT", "/elsewhere"))[0] == 404
    assert ask(model_server_process, request(b"", "DELETE"))[0] == 405


@pytest.mark.parametrize(
    "raw",
    [
        b"hello\r\n\r\n",
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno field\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"x" * 2**16,
    ],
)
def test_what_is_no_request_is_refused(model_server_process: Server, raw: bytes) -> None:
    with model_server_process.connect() as connection:
        connection.sendall(raw)
        assert read(connection)[0] == 400
        assert connection.recv(1) == b""


@pytest.mark.parametrize("head", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"])
def test_it_closes_the_connection_when_asked(model_server_process: Server, head: bytes) -> None:
    with model_server_process.connect() as connection:
        connection.sendall(head)
        assert read(connection) == (200, b"{}")
        assert connection.recv(1) == b""


def test_it_lets_a_client_go_on_that_asks_first(model_server_process: Server) -> None:
    head, _, body = request(STREAM, more="expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with model_server_process.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert len(times_in(read(connection)[1])) == 64


@pytest.mark.parametrize("interval", [0, 1])
def test_a_slow_reader_gets_everything_and_holds_up_nobody(model_server_process: Server, interval: int) -> None:
    put(model_server_process, f"/interval/{interval}")
    put(model_server_process, "/chunks/60000")  # 12 MB: more than sockets hold
    with model_server_process.connect() as connection:
        connection.sendall(request(STREAM) + request(b"", "GET", "/health"))
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
        put(model_server_process, "/chunks/2")
        assert len(times_in(ask(model_server_process, request(STREAM))[1])) == 2
        connection.sendall(request(b"{}", more="connection: close\r\n"))
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    stream, health, completion = raw.split(b"\r\ncontent-type: ")[1:]
    times = times_in(b"".join(chunks_of(stream.removesuffix(b"HTTP/1.1 200 OK"))))
    assert len(times) == 60000
    assert times == sorted(times)
    assert health.removesuffix(b"HTTP/1.1 200 OK").endswith(b"{}")
    assert b"chat.completion" in completion


def test_clients_that_leave_do_no_harm(model_server_process: Server) -> None:
    put(model_server_process, "/interval/1000")
    for number in range(50):
        with model_server_process.connect() as connection:
            connection.sendall(request(STREAM)[: -(number % 10) or None])
            if number % 10 == 0:
                assert connection.recv(1) == b"H"
    assert len(times_in(ask(model_server_process, request(STREAM))[1])) == 64


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(programs: Path, number: int) -> None:
    with running_model_server(programs) as server, server.connect() as connection:
        put(server, "/interval/3600000000")
        connection.sendall(request(STREAM))
        assert connection.recv(1) == b"H"
        assert server.end(number) == 0


@pytest.mark.parametrize("arguments", [[], ["-1"], ["65536"], ["http"], ["1", "2"], [""]])
def test_wrong_use_is_refused_with_what_is_right(programs: Path, arguments: list[str]) -> None:
    command = [str(programs / "model_server"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, env=ENVIRONMENT, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "usage: model_server PORT, a number from 0 (any free port) to 65535\n"


def test_a_port_that_is_taken_is_an_error_of_its_own(programs: Path, model_server_process: Server) -> None:
    command = [str(programs / "model_server"), str(model_server_process.port)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, env=ENVIRONMENT, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"cannot listen on 127.0.0.1:{model_server_process.port}: Address already in use\n"
