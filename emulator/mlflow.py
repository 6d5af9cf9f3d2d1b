"""MLflow behind the same port: its REST interface and its pages below `/_emulator/mlflow`, and the way in, `/auth`.

What the SageMaker SDK signs for an MLflow app, with its ARN in a header, is led there wherever it asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from emulator.calls import CLIENT_GONE, Call
from emulator.inference.http_client import HTTPClient
from emulator.inference.model_server import ModelServerError
from emulator.protocol.answer import Answer
from emulator.protocol.endpoint import (
    Authenticate,
    ClientGone,
    read_body,
    refuse,
    respond,
    while_connected,
)
from emulator.protocol.errors import AWSError, InternalServiceError, UnknownOperationException
from emulator.trainer.mlflow.server import MlflowAway, MlflowServer

if TYPE_CHECKING:
    from emulator.inference.http_connection import Answer as Arriving

#: Below this path.
PATH = "/_emulator/mlflow"

#: Seconds until MLflow's answer begins, and between two pieces of it.
TIMEOUT = 60.0

_APP_ARN = b"x-sm-mlflow-app-arn"

#: What is between two neighbours on the way, who asks, and what would have an answer compressed or left out. Cookies:
#: a browser has the same ones for every port of this machine, and the MLflow may be on another.
_NOT_PASSED = frozenset(
    b"accept-encoding authorization connection content-length cookie expect forwarded host if-modified-since "
    b"if-none-match keep-alive origin proxy-authorization referer te trailer transfer-encoding upgrade "
    b"x-amz-content-sha256 x-amz-date x-amz-security-token x-forwarded-for".split()
)
_NOT_PASSED_BACK = frozenset(
    {"connection", "date", "keep-alive", "server", "set-cookie", "trailer", "transfer-encoding", "upgrade"}
)


def is_for_mlflow(scope: Scope) -> bool:
    """Whether a request is MLflow's."""
    path: str = scope["path"]
    return path == PATH or path.startswith(f"{PATH}/") or any(name == _APP_ARN for name, _ in scope["headers"])


class Pages:
    """An ASGI application that leads to MLflow."""

    def __init__(
        self,
        server: MlflowServer | None,
        url: str,
        *,
        authenticate: Authenticate,
        refuse_strangers: Callable[[Scope], None],
        max_request_bytes: int,
    ) -> None:
        """`url`: this server's. `refuse_strangers` raises AccessDeniedException for who may not see pages."""
        self._server = server
        self._url = url
        self._authenticate = authenticate
        self._refuse_strangers = refuse_strangers
        self._max_request_bytes = max_request_bytes
        self._client: HTTPClient | None = None
        self._of = ""  # whose client it is

    async def url(self) -> str | None:
        """Where MLflow is on this port; None if there is none."""
        is_there = self._server is not None and await self._server.is_there()
        return f"{self._url}{PATH}" if is_there else None

    async def serve(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        try:
            answer = await while_connected(self._answer(scope, receive), scope)
            if isinstance(answer, Answer):
                await respond(answer, call, scope)
            else:
                call.status = answer.status
                await while_connected(_relay(answer, send), scope)
        except ClientGone:
            call.code = CLIENT_GONE
        except AWSError as error:
            await respond(refuse(call, error), call, scope)

    async def aclose(self) -> None:
        """End the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | Arriving:
        """Raises AWSError, ClientGone."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        body = await read_body(headers, scope, receive, self._max_request_bytes)
        if b"authorization" in headers and _APP_ARN in headers:
            self._authenticate(scope, body)
        self._refuse_strangers(scope)
        if self._server is None:
            raise UnknownOperationException("This server was started with --mlflow off")
        path: str = scope["raw_path"].decode("ascii")
        path = path.removeprefix(PATH) if path.startswith(PATH) else path
        if path in {"", "/auth"}:  # links go on to a fragment, which the browser keeps
            return Answer(b"", 302, None, ((b"location", f"{PATH}/".encode()),))
        return await self._ask(await self._origin(), scope, path, body)

    async def _origin(self) -> HTTPClient:
        """Raises InternalServiceError."""
        assert self._server is not None
        try:
            url = await self._server.url()
        except MlflowAway as error:
            raise InternalServiceError(str(error)) from None
        if self._client is None or url != self._of:
            await self.aclose()
            parts = urlsplit(url)
            tls = parts.scheme == "https"
            self._of = url
            self._client = HTTPClient(
                parts.hostname or "",
                parts.port or (443 if tls else 80),
                tls=tls,
                answer_timeout=TIMEOUT,
                idle_timeout=TIMEOUT,
            )
        return self._client

    async def _ask(self, client: HTTPClient, scope: Scope, path: str, body: bytes) -> Arriving:
        """Raises InternalServiceError."""
        query = scope["query_string"]
        target = urlsplit(self._of).path.rstrip("/") + path + (f"?{query.decode('ascii')}" if query else "")
        lines = b"".join(b"%b: %b\r\n" % (name, value) for name, value in scope["headers"] if name not in _NOT_PASSED)
        lines += b"x-forwarded-for: %b\r\n" % _asks(scope)
        # An answer without a body to a HEAD is not what our client expects.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            async with asyncio.timeout(TIMEOUT):
                return await client.request(method, target, {}, body, lines)
        except TimeoutError:
            raise InternalServiceError(f"MLflow at {self._of} does not answer within {TIMEOUT:g} s") from None
        except ModelServerError as error:
            why = str(error).removesuffix(" (--model-connect-timeout)")
            raise InternalServiceError(f"MLflow at {self._of} does not answer: {why}") from None


def _asks(scope: Scope) -> bytes:
    """For whom we ask, as X-Forwarded-For: MLflow's assistant, which may run commands, is for its own machine only."""
    before = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    peer = (scope.get("client") or ("unknown", 0))[0]
    return b", ".join([*before, peer.encode("ascii")])


async def _relay(answer: Arriving, send: Send) -> None:
    """Write an answer on as it comes; one that breaks off leaves ours unfinished, so that the client notices."""
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": _passed_back(answer.headers)})
        async for piece in answer:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except ModelServerError:
        pass
    finally:
        answer.close()


def _passed_back(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if name not in _NOT_PASSED_BACK
    ]
