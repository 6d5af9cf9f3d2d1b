"""What the proxy of `job-runtime-local run` leads where, whatever it is asked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from emulator.offline.authority import Authority
from emulator.offline.proxy import Proxy

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


@asynccontextmanager
async def proxy(said: list[str]) -> AsyncIterator[tuple[str, int, list[bytes]]]:
    """A proxy before an emulator that answers everything with `hi`; its address, and what came to the emulator."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    emulator = await asyncio.start_server(answer, "127.0.0.1", 0)
    found = Proxy(emulator.sockets[0].getsockname(), Authority(), said.append)
    try:
        host, port = (await found.start()).removeprefix("http://").split(":")
        yield host, int(port), heads
    finally:
        await found.aclose()
        emulator.close()


async def ask(address: tuple[str, int], line: str) -> bytes:
    """The first line of what a request is answered."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"{line} HTTP/1.1\r\nHost: s3.amazonaws.com\r\n\r\n".encode("latin-1"))
        return (await reader.readline()).rstrip()
    finally:
        writer.close()


@pytest.fixture(autouse=True)
def _nobody_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def guarded(host: str, *more: object, **named: object) -> object:
        assert host in {"127.0.0.1", "localhost", "::1"}
        return look_up(host, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", guarded)


def asked(*lines: str) -> tuple[set[bytes], list[bytes], list[str]]:
    """What requests are answered, what came to the emulator, and what the proxy said."""
    said: list[str] = []

    async def run() -> tuple[set[bytes], list[bytes], list[str]]:
        async with proxy(said) as (host, port, heads):
            return {await ask((host, port), line) for line in lines}, heads, said

    return asyncio.run(run())


@pytest.mark.parametrize(
    "host",
    [
        "example.com", "amazonaws.com.evil.org", "evilamazonaws.com", "s3.amazonaws.com@evil.org",
        "evil.org#.amazonaws.com", "evil.org?.amazonaws.com", "8.8.8.8", "169.254.169.254", "0.0.0.0", "2130706433",
        "127.1",
        "[2001:db8::1]", "[::ffff:8.8.8.8]", "[::]", "localhost.evil.org", "127.0.0.1.nip.io",
    ],
)  # fmt: skip
def test_what_is_not_awss_is_refused_however_it_is_spelled(host: str) -> None:
    answers, heads, said = asked(
        f"CONNECT {host}:443", f"CONNECT {host}", f"GET http://{host}/", f"GET http://{host}:8080/x"
    )
    assert (answers, heads, len(said)) == ({b"HTTP/1.1 403 Forbidden"}, [], 1)


@pytest.mark.parametrize(
    "line",
    [
        "GET /", "GET //sts.amazonaws.com/", "GET //127.0.0.1:1/", "GET https://sts.amazonaws.com/",
        "GET ftp://sts.amazonaws.com/", "GET http:///", "GET *", "GET http://sts.amazonaws.com:port/", "CONNECT :443",
        "CONNECT a_b.s3.amazonaws.com:443", f"CONNECT {'x' * 64}.amazonaws.com:443", "CONNECT a..amazonaws.com:443",
        "CONNECT [::1:443", "nonsense",
    ],
)  # fmt: skip
def test_what_is_no_request_to_a_proxy_is_said_to_be_none(line: str) -> None:
    assert asked(line) == ({b"HTTP/1.1 400 Bad Request"}, [], [])


def test_a_request_for_awss_host_comes_to_the_emulator_whatever_its_port() -> None:
    hosts = ("sts.amazonaws.com", "STS.AmazonAWS.com.:8443", "a_b.s3.amazonaws.com.cn", "u:p@x.api.aws:80")
    answers, heads, said = asked(*(f"GET http://{host}/a?b=c" for host in hosts))
    assert (answers, said) == ({b"HTTP/1.1 200 OK"}, [])
    assert [head.split(b"\r\n")[0] for head in heads] == [b"GET /a?b=c HTTP/1.1"] * len(hosts)


def test_only_loopback_reaches_it() -> None:
    async def run() -> None:
        async with proxy([]) as (address, port, _):
            listening = [each.laddr for each in psutil.Process().net_connections() if each.status == psutil.CONN_LISTEN]
            assert [each for each in listening if each[1] == port] == [(address, port)] == [("127.0.0.1", port)]

    asyncio.run(run())
