"""A proxy on loopback through which AWS's hosts are the emulator, and there are no others.

What a client says inside TLS goes to the emulator byte for byte, its Host included: S3 finds the bucket in it, and
signatures hold.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from emulator.offline.authority import Authority
from emulator.protocol.web_pages import is_aws
from emulator.settings import is_loopback

#: Bytes of a request's head, and of a piece that is passed on.
_PIECE = 64 * 1024

#: Fields that are between a client and a proxy; each of our connections carries one request.
_HOP = (b"proxy-connection:", b"proxy-authorization:", b"connection:", b"keep-alive:")

_REFUSAL = "{host} is not reachable from here: under job-runtime-local run there are AWS's hosts, as it emulates them"


class Refusal(Exception):
    """A request that goes nowhere: the status and what to say."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


class Proxy:
    """Between one program and one emulator."""

    def __init__(self, emulator: tuple[str, int], authority: Authority, say: Callable[[str], None]) -> None:
        """`emulator`: its address on this machine; `say` gets a line when a host is first refused."""
        self._emulator = emulator
        self._authority = authority
        self._say = say
        self._said: set[str] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen on loopback; the proxy's URL."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_PIECE)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def aclose(self) -> None:
        """Hang up."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # one of the two has hung up, or speaks no HTTP
        except asyncio.CancelledError:
            pass  # `aclose`
        finally:
            self._connections.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        try:
            method, target, version = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
            url = urlsplit(f"//{target}" if method == "CONNECT" else target)
            if url.scheme != ("" if method == "CONNECT" else "http"):
                raise ValueError("neither CONNECT nor http://")
            host, port = url.hostname or "", url.port or 80
            address = self._address(host, port)
            context = self._authority.context(host) if method == "CONNECT" and is_aws(host) else None
        except ValueError:  # of a name, too, for which there can be no certificate
            refusal = Refusal("400 Bad Request", "This is a proxy: it wants CONNECT, or http:// and a host")
            await _refuse(writer, refusal)
            return
        except Refusal as error:
            await _refuse(writer, error)
            return
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            if context is not None:
                try:
                    await writer.start_tls(context)
                except ssl.SSLError as error:
                    self._say_once(f"a program does not believe our certificate of {host}: {error.reason or error}")
                    return
            await _pass_on(reader, writer, address, b"")
            return
        path = url._replace(scheme="", netloc="").geturl() or "/"
        lines = head.split(b"\r\n")[1:-2]
        kept = [line for line in lines if not line.lower().startswith(_HOP)]
        request = [f"{method} {path} {version}".encode("latin-1"), *kept, b"Connection: close", b"", b""]
        await _pass_on(reader, writer, address, b"\r\n".join(request))

    def _address(self, host: str, port: int) -> tuple[str, int]:
        """Where a request for a host goes. Raises Refusal, ValueError for none."""
        if not host:
            raise ValueError("no host")
        if is_aws(host):
            return self._emulator
        if is_loopback(host):  # of a client that does not read NO_PROXY
            return host, port
        self._say_once(f"refused {host}: only AWS's hosts are here, as the emulator has them")
        raise Refusal("403 Forbidden", _REFUSAL.format(host=host))

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


async def _refuse(writer: asyncio.StreamWriter, refusal: Refusal) -> None:
    body = f"{refusal}\n".encode()
    head = (
        f"HTTP/1.1 {refusal.status}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: tuple[str, int], first: bytes
) -> None:
    """Pass bytes both ways until one of the two hangs up. Raises OSError."""
    their_reader, their_writer = await asyncio.open_connection(*address)
    try:
        their_writer.write(first)
        both = {
            asyncio.create_task(_copy(reader, their_writer)),
            asyncio.create_task(_copy(their_reader, writer)),
        }
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
    finally:
        their_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
