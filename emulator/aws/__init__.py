"""The rest of AWS behind the same port: moto, in this process, and small modules of ours for what it lacks.

moto is the extra `aws`. Nothing of it is imported before the first request for it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from starlette.types import Receive, Scope, Send

from emulator.calls import Call
from emulator.protocol.endpoint import refuse, respond
from emulator.protocol.errors import UnknownOperationException, aws_json_body, rest_json_body

#: What a signature says of its service: `Credential=KEY/20261121/us-west-2/s3/aws4_request`.
_SCOPE = re.compile(rb"Credential=[^/,]+/[0-9]{8}/[^/]*/([a-z0-9\-]+)/aws4_request")


def service_of(scope: Scope) -> str | None:
    """Which of AWS's services a request is signed for; None if it is signed for none."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            found = _SCOPE.search(value)
            return None if found is None else found[1].decode()
    # A URL that was signed in advance.
    found = re.search(rb"X-Amz-Credential=[^&]*?%2F([a-z0-9\-]+)%2Faws4_request", scope["query_string"])
    return None if found is None else found[1].decode()


class OtherServices:
    """An ASGI application for requests that are signed for a service of AWS."""

    def __init__(self) -> None:
        self._moto: Any = None
        self._lock = asyncio.Lock()

    async def serve(self, service: str, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request for a service."""
        try:
            moto = await self._load()
        except ImportError:
            error = UnknownOperationException(
                f"{scope['method']} {scope['path']} is for {service}, which comes with an extra: "
                "pip install 'job-runtime-local[aws]'"
            )
            body = aws_json_body if any(name == b"x-amz-target" for name, _ in scope["headers"]) else rest_json_body
            await respond(refuse(call, error, body), call, scope)
            return
        await moto(scope, receive, send)

    async def _load(self) -> Any:
        async with self._lock:
            if self._moto is None:
                self._moto = await asyncio.to_thread(_make_moto)
        return self._moto


def _make_moto() -> Any:
    """Raises ImportError where the extra is not installed."""
    from a2wsgi import WSGIMiddleware
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: Any, start_response: Any) -> Any:
        scope = environ["asgi.scope"]
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        environ["RAW_URI"] = (scope["raw_path"] + query).decode("latin-1")  # S3's keys may hold anything
        return moto(environ, start_response)

    return WSGIMiddleware(application)
