"""One operation at its path: a raw ASGI application from request to answer.

Raw, because Starlette's Request, Response and middleware cost a quarter of the rate (see ARCHITECTURE.md), and
because an answer has to be watched for its client going away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from emulator.calls import BROKEN_STREAM, CLIENT_GONE, MODEL_ERROR, Call, Calls
from emulator.protocol.answer import Answer, BrokenStream, Client, StreamAnswer
from emulator.protocol.errors import (
    AWSError,
    InternalServiceError,
    UnknownOperationException,
    ValidationException,
    rest_json_body,
)
from emulator.protocol.web_pages import refuse_web_pages

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Answer | StreamAnswer]]

#: Makes an operation's keyword arguments of header and body; raises AWSError.
Decode = Callable[[Mapping[bytes, bytes], bytes], dict[str, Any]]

#: Has a call suffer faults: the operation's name, its handler, the ASGI scope, the handler's arguments.
Interfere = Callable[[str, Handler, Scope, Mapping[str, Any]], Awaitable[Answer | StreamAnswer]]

#: Checks who calls; raises AccessDeniedException. Takes the ASGI scope and the whole body.
Authenticate = Callable[[Scope, bytes], None]

#: Checks whether the caller may do this with these arguments; raises AccessDeniedException.
Authorize = Callable[[Mapping[str, Any]], None]


Headers = list[tuple[bytes, bytes]]

#: Where a request's `Exchange` stands among the extensions of its ASGI scope.
EXCHANGE = "job_runtime_local.exchange"


class Exchange(Client, Protocol):
    """What a connection offers beside ASGI's messages (see `emulator.connection`)."""

    task: asyncio.Task[None]  #: which serves the request
    keep_alive: bool  #: whether the connection takes another request after this one

    def whole_body(self) -> bytes | None:
        """The request's body, if all of it has come; then there is nothing more to receive."""

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a whole answer; `headers` without content-length. Raises ValueError for a line break in a header."""

    def write(self, piece: bytes) -> bool:
        """Write a piece of a stream that `send` has begun."""

    def drop(self) -> None:
        """Hang up, whatever is under way; `watch` hears of it as of a client that went away."""

    def watch(self, gone: Callable[[], object] | None) -> None:
        """Have `gone` called when the client goes away, at once if it has gone already; None: no longer."""


class ClientGone(Exception):
    """The client went away before its request was whole."""


class Endpoint:
    """Serves one operation: reads the request, calls the handler with the decoded members, writes the answer.

    `decode` None: nothing is decoded, the handler takes no arguments (GET /v1/models).
    """

    interfere: Interfere | None = None  #: set while calls are to suffer faults, from any thread

    def __init__(
        self,
        name: str,
        handler: Handler,
        decode: Decode | None,
        *,
        calls: Calls,
        method: str = "POST",
        error_body: Callable[[AWSError], bytes] = rest_json_body,
        authenticate: Authenticate,
        authorize: Authorize,
        max_request_bytes: int,
    ) -> None:
        self._name = name
        self._handler = handler
        self._calls = calls
        self._decode = decode
        self.method = method
        self._error_body = error_body
        self._authenticate = authenticate
        self._authorize = authorize
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        call = self._calls.begin(self._name, scope)
        try:
            answer = await self._answer(call, scope, receive)
            if not 200 <= answer.status < 300:
                call.code = MODEL_ERROR
                if isinstance(answer, Answer):
                    call.retry_after = dict(answer.headers).get(b"retry-after", b"").decode("latin-1") or None
        except ClientGone:
            call.code = CLIENT_GONE
            self._calls.end(call, scope)
            return
        except AWSError as error:
            answer = refuse(call, error, self._error_body)
        except asyncio.CancelledError:  # the server was told to stop, and will not wait any longer
            answer = refuse(call, InternalServiceError("The server is stopping"), self._error_body)
        except Exception:
            log.exception("a request failed")
            answer = refuse(call, InternalServiceError("An internal error occurred; see the log"), self._error_body)
        try:
            if isinstance(answer, Answer):
                await respond(answer, call, scope)
            else:
                await self._relay(answer, call, scope, send)
        finally:
            self._calls.end(call, scope)

    async def _answer(self, call: Call, scope: Scope, receive: Receive) -> Answer | StreamAnswer:
        # ASSUMED: unknown paths and wrong methods are answered as other AWS services do.
        if scope["method"] != self.method:
            raise UnknownOperationException(f"{scope['method']} {scope['path']}: send {self.method}")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refuse_web_pages(headers)
        body = await read_body(headers, scope, receive, self._max_request_bytes)
        call.received_at = perf_counter()
        call.body = body
        self._authenticate(scope, body)
        if self._decode is None:
            arguments = {}
        else:
            arguments = self._decode(headers, body)
            call.job_arn, call.trajectory_id = arguments.get("job_arn"), arguments.get("trajectory_id")
        self._authorize(arguments)
        interfere = self.interfere
        if interfere is None:
            work = self._handler(**arguments)
        else:
            work = interfere(self._name, self._handler, scope, arguments)
        answer: Answer | StreamAnswer = await while_connected(work, scope)
        return answer

    async def _relay(self, answer: StreamAnswer, call: Call, scope: Scope, send: Send) -> None:
        """Write a stream; one that breaks leaves its response unfinished, so that the client notices."""
        exchange: Exchange = scope["extensions"][EXCHANGE]
        metrics = self._calls.metrics
        metrics.open_streams += 1
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": _headers(answer, call)})
            await while_connected(answer.relay(exchange), scope)
        except ClientGone:
            call.code = CLIENT_GONE
        except asyncio.CancelledError:
            call.code, call.problem = BROKEN_STREAM, "The server is stopping"
        except (BrokenStream, AWSError) as error:
            call.code, call.problem = BROKEN_STREAM, str(error)
        except Exception:
            log.exception("a stream failed")
            call.code, call.problem = BROKEN_STREAM, "An internal error occurred; see the log"
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            metrics.open_streams -= 1


async def read_body(headers: Mapping[bytes, bytes], scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body. Raises ValidationException as soon as it is known to be too large, ClientGone."""
    exchange: Exchange = scope["extensions"][EXCHANGE]
    whole = exchange.whole_body()
    if whole is not None and len(whole) <= limit:
        return whole
    length = headers.get(b"content-length")
    pieces, size = [], int(length) if length is not None else 0
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message.get("body", b""))
        if length is None:  # it comes in chunks
            size += len(pieces[-1])
        if size <= limit and not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    # ASSUMED: the error; the service's own limit is not public.
    raise ValidationException(f"The request body is larger than {limit} bytes; --max-request-bytes sets another limit")


def error_answer(error: AWSError, body: Callable[[AWSError], bytes] = rest_json_body) -> Answer:
    """An error as an answer."""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"x-amzn-errortype", error.code.encode()),)
    if error.retry_after is not None:
        headers += ((b"retry-after", error.retry_after.encode("latin-1", "replace")),)
    return Answer(body(error), error.status, "application/json", headers)


def refuse(call: Call, error: AWSError, body: Callable[[AWSError], bytes] = rest_json_body) -> Answer:
    """An error as the answer to a call."""
    call.code, call.problem, call.retry_after = error.code, error.message, error.retry_after
    call.reason = None if error.__cause__ is None else type(error.__cause__).__name__
    return error_answer(error, body)


async def respond(answer: Answer, call: Call, scope: Scope) -> None:
    """Write a whole answer."""
    exchange: Exchange = scope["extensions"][EXCHANGE]
    await exchange.answer(answer.status, [*_headers(answer, call), *answer.headers], answer.body)


def _headers(answer: Answer | StreamAnswer, call: Call) -> Headers:
    call.status = answer.status
    headers = [(b"x-amzn-requestid", call.request_id)]
    if answer.content_type is not None:
        headers.append((b"content-type", answer.content_type.encode("latin-1", "replace")))
    return headers


async def while_connected(work: Awaitable[Any], scope: Scope) -> Any:
    """Wait for `work`, and cancel it when the client goes away. Raises ClientGone."""
    exchange: Exchange = scope["extensions"][EXCHANGE]
    task = exchange.task
    gone = False

    def cancel() -> None:
        nonlocal gone
        if not gone:  # it may be told twice: that the connection is closing, and that it is lost
            gone = True
            task.cancel()

    exchange.watch(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        exchange.watch(None)
