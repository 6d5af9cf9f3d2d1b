"""JSON over HTTP to one origin: what the trainer needs of a client, on the connections that model servers have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from emulator import __version__
from emulator.inference.http_client import HTTPClient
from emulator.inference.model_server import ModelServerError, header_lines

#: The most that is read of an answer.
MAX_ANSWER = 64 * 1024 * 1024

#: Whoever calls has a time-out of its own; these are no limits.
_FOREVER = 10.0**9


class HTTPError(Exception):
    """There was no answer, or no whole one; the message says why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    body: bytes
    content_type: str | None = None


class Origin:
    """The server that a URL names, and the URL's path."""

    def __init__(self, url: str, *, keep_alive: bool = False) -> None:
        """Raises ValueError, which does not quote the URL.

        `keep_alive`: not for agents: a request whose connection was found closed is sent again, which
        could start a rollout twice.
        """
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or port == 0 or parts.scheme not in {"http", "https"} or not url.isascii() or " " in url:
            raise ValueError("must look like http://HOST:PORT")
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("must have no user, password or fragment")
        tls = parts.scheme == "https"
        self.path = parts.path.rstrip("/")
        self.query = f"?{parts.query}" if parts.query else ""
        self._client = HTTPClient(
            host,
            port or (443 if tls else 80),
            tls=tls,
            answer_timeout=_FOREVER,
            idle_timeout=_FOREVER,
            max_idle=256 if keep_alive else 0,
        )

    @property
    def authority(self) -> str:
        """Host and port."""
        return self._client.authority

    async def send(
        self, method: str, target: str, document: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request, with a document or JSON's bytes as its body, and read the whole answer. Raises HTTPError."""
        fields = {"accept": "application/json", "user-agent": f"job-runtime-local/{__version__}"}
        body = document if isinstance(document, bytes) else b"" if document is None else json.dumps(document).encode()
        if body:
            fields["content-type"] = "application/json"
        try:
            answer = await self._client.request(method, target, fields, body, header_lines(headers or {}))
            try:
                pieces, length = [], 0
                async for piece in answer:
                    pieces.append(piece)
                    length += len(piece)
                    if length > MAX_ANSWER:
                        raise HTTPError(f"more than {MAX_ANSWER} bytes came from {self.authority}")
            finally:
                answer.close()
        except ModelServerError as error:
            raise HTTPError(str(error).removesuffix(" (--model-connect-timeout)")) from None
        return Reply(answer.status, b"".join(pieces), answer.headers.get("content-type"))

    async def aclose(self) -> None:
        """End all connections."""
        await self._client.aclose()
