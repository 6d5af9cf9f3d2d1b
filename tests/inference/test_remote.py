"""A model server behind a URL, against servers that write exactly the bytes of a script."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from emulator import __version__
from emulator.inference.model_server import Health, ModelAnswer, ModelRequest, ModelServer, ModelServerError
from emulator.inference.remote import RemoteServer
from tests.inference import OK, Script, Server, Wire, always, run, serving

CHAT = ModelRequest("/v1/chat/completions", b'{"model": "default", "n":  1.50}')
SECRET = "sk-very-secret"


@asynccontextmanager
async def remote_of(server: Server, path: str = "", **settings: Any) -> AsyncIterator[ModelServer]:
    remote: ModelServer = RemoteServer(f"http://127.0.0.1:{server.port}{path}", **settings)
    await remote.start()
    try:
        yield remote
    finally:
        await remote.aclose()


async def whole(answer: ModelAnswer) -> bytes:
    try:
        return b"".join([piece async for piece in answer])
    finally:
        answer.close()


def status(code: int) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % code


async def seen_by_the_server(
    request: ModelRequest, path: str = "", **settings: Any
) -> tuple[bytes, dict[str, str], bytes]:
    """Request line, header fields and body, as they arrive at the model server."""
    seen = []

    async def script(wire: Wire) -> None:
        seen.append(await wire.request())
        await wire.write(OK)

    async with serving(script) as server, remote_of(server, path, **settings) as remote:
        assert await whole(await remote.send(request)) == b"ok"
    ((head, body),) = seen
    line, *fields = head.rstrip().split(b"\r\n")
    names = [field.decode().split(": ", 1) for field in fields]
    assert len(dict(names)) == len(names)
    return line, {name: re.sub(r":\d+$", "", value) for name, value in names}, body


def test_a_request_travels_as_it_is() -> None:
    async def body() -> None:
        line, headers, text = await seen_by_the_server(CHAT)
        assert line == b"POST /v1/chat/completions HTTP/1.1"
        assert headers == {
            "host": "127.0.0.1",
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "content-length": str(len(CHAT.body)),
            "user-agent": f"job-runtime-local/{__version__}",
        }
        assert text == CHAT.body

    run(body())


def test_a_get_has_no_body_and_says_nothing_of_one() -> None:
    async def body() -> None:
        line, headers, text = await seen_by_the_server(ModelRequest("/v1/models", method="GET"))
        assert (line, text) == (b"GET /v1/models HTTP/1.1", b"")
        assert headers.keys() == {"host", "accept", "accept-encoding", "user-agent"}

    run(body())


def test_the_key_travels_as_a_bearer_token_and_shows_nowhere_else() -> None:
    async def body() -> None:
        _, headers, _ = await seen_by_the_server(CHAT, api_key=SECRET)
        assert headers["authorization"] == f"Bearer {SECRET}"
        remote = RemoteServer("http://127.0.0.1:1", api_key=SECRET)
        assert repr(remote) == "RemoteServer('127.0.0.1:1')"
        with pytest.raises(ModelServerError) as caught:
            await remote.send(CHAT)
        assert SECRET not in str(caught.value)

    run(body())


@pytest.mark.parametrize("key", [f"{SECRET}\r\nx: y", f"{SECRET}é", f" {SECRET}", f"{SECRET}\n"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_unquoted(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        RemoteServer("http://127.0.0.1:1", api_key=key)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/models/a/v1", "/models/a/v1/chat/completions"),
        ("/models/a/", "/models/a/v1/chat/completions"),
        ("/rev1", "/rev1/v1/chat/completions"),
    ],
)
def test_the_path_of_the_url_comes_before_that_of_the_request(path: str, target: str) -> None:
    async def body() -> None:
        line, _, _ = await seen_by_the_server(CHAT, path)
        assert line == f"POST {target} HTTP/1.1".encode()

    run(body())


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8000", "localhost", "ftp://a", "http://", "http:///v1", "http://:8000", "http://a:port"),
        *(
            "http://a:0",
            "http://a:65536",
            "http://[::1",
            "http://a/?",
            "http://a?key=secret",
            "http://a#",
            "http://a b",
        ),
        *("http://user@a", "http://user:secret@a", "http://user:secret/@a", "http://a/\r\nx: y", "http://é"),
    ],
)
def test_a_url_that_names_no_server_is_refused_unquoted(url: str) -> None:
    with pytest.raises(ValueError, match="the model server's URL") as caught:
        RemoteServer(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost", "localhost:80"),
        ("https://Models.example/a/v1", "models.example:443/a"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_port_and_case_of_a_url_are_understood(url: str, shown: str) -> None:
    assert repr(RemoteServer(url)) == f"RemoteServer({shown!r})"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model": "default", "n": [1.5, null]}', {"model": "real", "n": [1.5, None]}),
        (b'{"n": 1}', {"n": 1, "model": "real"}),
        ('{"model": "x", "content": "né 日本 😀"}'.encode(), {"model": "real", "content": "né 日本 😀"}),
        (rb'{"content": "half \ud83d \u00e9"}', {"content": "half \ud83d é", "model": "real"}),
    ],
)
def test_the_model_is_rewritten_on_request(before: bytes, after: dict[str, object]) -> None:
    async def body() -> None:
        _, headers, text = await seen_by_the_server(ModelRequest("/v1/completions", before), rewrite_model="real")
        assert json.loads(text) == after
        assert text.decode("utf-8", "strict")
        assert headers["content-length"] == str(len(text))

    run(body())


@pytest.mark.parametrize(
    "text", [b"{", b"[1]", b'"model"', b"\xff\xfe\xfd", b"[" * 100_000, b'{"n": ' + b"9" * 5000 + b"}"]
)
def test_a_body_without_a_model_to_rewrite_travels_as_it_is(text: bytes) -> None:
    async def body() -> None:
        assert (await seen_by_the_server(ModelRequest("/v1/completions", text), rewrite_model="real"))[2] == text

    run(body())


def test_an_error_of_the_model_is_an_answer() -> None:
    async def body() -> None:
        text = b'HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"error": "x"'
        async with serving(always(text)) as server, remote_of(server) as remote:
            answer = await remote.send(CHAT)
            assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
            assert await whole(answer) == b'{"error": "x"'

    run(body())


def by_path(**statuses: int) -> Script:
    """Answers `/health` and `/v1/models` with these."""

    async def script(wire: Wire) -> None:
        while True:
            head, _ = await wire.request()
            path = head.split()[1].decode()
            await wire.write(status(statuses[path.rsplit("/", 1)[1]]))

    return script


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ({"health": 200}, Health(True, "ready")),
        ({"health": 503}, Health(False, "GET /health answered 503")),
        ({"health": 401}, Health(False, "GET /health answered 401")),
        ({"health": 404, "models": 200}, Health(True, "GET /v1/models answered 200")),
        ({"health": 405, "models": 401}, Health(True, "GET /v1/models answered 401")),
        ({"health": 501, "models": 404}, Health(True, "GET /v1/models answered 404")),
        ({"health": 404, "models": 502}, Health(False, "GET /v1/models answered 502")),
    ],
)
def test_health_asks_health_and_then_the_models(statuses: dict[str, int], expected: Health) -> None:
    async def body() -> None:
        async with serving(by_path(**statuses)) as server, remote_of(server, "/prefix/v1") as remote:
            assert await remote.health() == expected

    run(body())


def test_health_of_a_server_that_is_not_there_says_so() -> None:
    async def body() -> None:
        async with serving(always(OK)) as server:
            pass
        async with remote_of(server) as remote:
            assert await remote.health() == Health(False, f"Connection refused by 127.0.0.1:{server.port}")

    run(body())


def test_health_of_a_server_that_speaks_no_http_says_so() -> None:
    async def body() -> None:
        async with serving(always(b"hello\r\n")) as server, remote_of(server) as remote:
            health = await remote.health()
            assert not health.ready
            assert "not HTTP/1.1" in health.detail

    run(body())


def test_health_of_a_silent_server_is_known_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emulator.inference.remote.HEALTH_TIMEOUT", 0.05)

    async def body() -> None:
        async with serving(Wire.ended) as server, remote_of(server) as remote:
            assert await remote.health() == Health(False, "no answer within 0.05 s")
            await server.done.wait()

    run(body())


def test_health_does_not_wait_for_samples() -> None:
    async def body() -> None:
        waiting = asyncio.Semaphore(0)

        async def script(wire: Wire) -> None:
            head, _ = await wire.request()
            if head.startswith(b"GET /health"):
                await wire.write(status(200))
            else:
                waiting.release()
            await wire.ended()

        async with serving(script) as server, remote_of(server) as remote:
            samples = [asyncio.ensure_future(remote.send(CHAT)) for _ in range(300)]
            for _ in samples:
                await waiting.acquire()
            assert await remote.health() == Health(True, "ready")
            for sample in samples:
                sample.cancel()
            await asyncio.gather(*samples, return_exceptions=True)

    run(body())


def test_cancelling_a_sample_hangs_up() -> None:
    async def body() -> None:
        arrived = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.request()
            arrived.set()
            await wire.ended()

        async with serving(script) as server, remote_of(server) as remote:
            sample = asyncio.ensure_future(remote.send(CHAT))
            await arrived.wait()
            sample.cancel()
            await server.done.wait()

    run(body())
