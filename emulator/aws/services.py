"""Requests for other services of AWS: to our own modules, or to moto; and what moto shall know after a restart."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.types import Receive, Scope, Send

from emulator.admission import Admission
from emulator.aws.disk import Disk, UnreadableFile
from emulator.aws.place import MlflowUrl, Place
from emulator.aws.refusals import shaped
from emulator.aws.request import IN_MEMORY, Reply, Request, read_request, scope_of
from emulator.calls import CLIENT_GONE, Call, Calls
from emulator.protocol import aws_json
from emulator.protocol.answer import Answer
from emulator.protocol.endpoint import ClientGone, Endpoint
from emulator.protocol.errors import AWSError, InternalServiceError, aws_json_body
from emulator.protocol.web_pages import refuse_embedded, refuse_other_names, refuse_web_pages
from emulator.settings import Settings, is_loopback

if TYPE_CHECKING:
    from emulator.aws.moto_app import Moto
    from emulator.aws.ours import Ours
    from emulator.trainer.agents import Agent

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Requests that are served at once. Not of the event loop's own threads: jobs wait in those for answers from here.
THREADS = 8


class ExtraMissing(AWSError):
    """moto is not installed."""

    status = 400


class OtherServices:
    """Serves requests that are signed for a service of AWS. moto is loaded by the first that needs it."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        calls: Calls,
        admission: Admission,
        mlflow_url: MlflowUrl | None = None,
    ) -> None:
        """`url`: where this server is reached."""
        self._settings = settings
        self._url = url
        self._own: Ours | None = None
        self._verify = admission.verify
        self._moto: Moto | None = None
        self._loading = threading.Lock()
        self._changing = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self.disk = Disk(kept_beside(settings), durable=settings.durability == "full")
        self.place = Place(
            settings.region,
            settings.own_account,
            settings.limits == "aws",
            self.disk,
            self._in_thread,
            self._ask,
            mlflow_url or _no_mlflow,
        )
        #: Our own operations of SageMaker's, by what `X-Amz-Target` says; their modules are imported by the first.
        self.endpoints = _Endpoints(
            lambda name, function: Endpoint(
                name,
                partial(_answer, name, partial(function, self.place), self.disk),
                partial(aws_json.decode, name),
                calls=calls,
                error_body=aws_json_body,
                authenticate=admission.authenticate,
                authorize=admission.authorize,
                max_request_bytes=settings.max_request_bytes,
            )
        )

    async def serve(self, service: str, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request for a service."""
        region, _ = scope_of(scope) or ("", service)
        try:
            headers: Mapping[bytes, bytes] = dict(scope["headers"])
            refuse_web_pages(headers)
            refuse_embedded(headers)
            if self._verify is None and is_loopback(self._settings.host):  # else it has more names than it knows
                refuse_other_names(headers, self._settings.host)
            limit = self._settings.max_request_bytes
            request = await read_request(service, region or self._settings.region, scope, receive, limit)
            call.received_at = perf_counter()
            with request.file:
                if self._verify is not None:
                    self._verify(scope, service, await self._in_thread(request.digest))
                reply = await self._ours(request) or await self._ask(request)
        except ClientGone:
            call.code = CLIENT_GONE
            return
        except AWSError as error:
            reply = _refusal(error, service, call, scope)
        except asyncio.CancelledError:  # the server was told to stop, and will not wait any longer
            reply = _refusal(InternalServiceError("The server is stopping"), service, call, scope)
        except Exception:
            log.exception("a request failed")
            failure = InternalServiceError("An internal error occurred; see the log")
            reply = _refusal(failure, service, call, scope)
        if reply.status >= 400 and call.problem is None:
            call.code, call.problem = (
                reply.header("x-amzn-errortype") or str(reply.status),
                reply.body[:200].decode("utf-8", "replace"),
            )
        await _send(reply, call, scope, send)

    async def created_function(self, arn: str) -> Agent | None:
        """The Lambda function that was made here under an ARN, as an agent."""
        return await self._make_ours().functions.agent(arn)

    async def tags_of_others(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """AddTags, ListTags or DeleteTags of what is not ours: moto's answer. Raises AWSError."""
        headers = {"content-type": aws_json.CONTENT_TYPE, "x-amz-target": f"{aws_json.TARGET}{operation}"}
        body = json.dumps(members).encode()
        reply = await self._ask(
            Request.of_ours("sagemaker", self._settings.region, "POST", "/", headers=headers, body=body)
        )
        return Answer(reply.body, reply.status, reply.header("content-type") or aws_json.CONTENT_TYPE)

    async def reset(self) -> None:
        """Forget everything, and keep nothing."""
        await self._in_thread(self._reset)

    async def aclose(self) -> None:
        """Let go of what is kept. What moto holds is the process's: it is forgotten, not to be found by another."""
        if self._own is not None:
            await self._own.aclose()
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)
        if self._moto is not None:
            self._moto.reset()
        self.disk.close()

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def _make_ours(self) -> Ours:
        if self._own is None:
            from emulator.aws.ours import Ours

            self._own = Ours(self._settings, self._url, lambda: self._in_thread(self._load))
        return self._own

    async def _ours(self, request: Request) -> Reply | None:
        """The reply to a request for what runs here; None: it is moto's. Raises AWSError."""
        if request.service not in ("lambda", "bedrock-agentcore"):
            return None
        return await self._make_ours().serve(request)

    async def _ask(self, request: Request) -> Reply:
        try:
            return await self._in_thread(self._answer, request)
        finally:
            if request.size > IN_MEMORY:  # moto's requests are rings of references, and hold the body
                await self._in_thread(gc.collect)

    def _answer(self, request: Request) -> Reply:
        """Serve a request, in a thread. Raises AWSError."""
        moto = self._load()
        from emulator.aws import identity, kept, model_packages

        if request.service == "iam" and request.operation == "SimulatePrincipalPolicy":
            return identity.simulate_principal_policy(request)
        if request.service == "sagemaker":
            request = model_packages.rewrite(moto, request)
        if self.disk.lasts and kept.is_change(request):
            with self._changing:
                reply = moto.call(request)
                try:
                    kept.keep(self.disk, moto, request, reply)
                except (sqlite3.Error, UnreadableFile) as error:
                    raise InternalServiceError(f"It was done, but would not outlive the server: {error}") from error
                return reply
        reply = moto.call(request)
        if request.service == "sts" and request.operation == "GetCallerIdentity":
            return identity.caller_identity(reply, moto.account)
        return reply

    def _load(self) -> Moto:
        """Raises ExtraMissing, InternalServiceError."""
        with self._loading:
            if self._moto is None:
                try:
                    from emulator.aws.moto_app import Moto
                except ImportError as error:
                    raise ExtraMissing(
                        f"This comes with an extra: pip install 'job-runtime-local[aws]' ({error})"
                    ) from None
                moto = Moto(self._settings.own_account)
                self._fill(moto)
                self._moto = moto
        return self._moto

    def _fill(self, moto: Moto) -> None:
        from emulator.aws.identity import create_default_role
        from emulator.aws.restore import restore

        create_default_role(moto)
        with _readable(self.disk):
            restore(self.disk, moto)

    def _reset(self) -> None:
        with self._loading, self._changing:
            self.disk.clear()
            if self._moto is not None:
                self._moto.reset()
                self._fill(self._moto)


class _Endpoints:
    """Endpoints by target, made when they are first asked for."""

    def __init__(self, make: Callable[[str, Callable[..., Awaitable[dict[str, Any]]]], Endpoint]) -> None:
        self._make = make
        self._made: dict[str, Endpoint] = {}

    def get(self, target: str) -> Endpoint | None:
        """The endpoint of a target, if the operation is ours."""
        if target not in self._made and target.startswith(aws_json.TARGET):
            from emulator.aws.sagemaker import OPERATIONS

            name = target.removeprefix(aws_json.TARGET)
            if (function := OPERATIONS.get(name)) is not None:
                self._made[target] = self._make(name, function)
        return self._made.get(target)


def kept_beside(settings: Settings) -> Path | None:
    """The file of what is kept: beside a SQLite database; None where nothing is."""
    address = settings.address
    if settings.durability == "memory" or not isinstance(address, Path):
        return None
    address = address.absolute()
    return address.with_name(f"{address.name}-aws")


@contextmanager
def _readable(disk: Disk) -> Iterator[None]:
    """Whoever asks hears which file it is that cannot be read. Raises InternalServiceError."""
    try:
        yield
    except UnreadableFile as error:
        raise InternalServiceError(str(error)) from error
    except sqlite3.Error as error:
        raise InternalServiceError(f"{disk.path}: {error}") from error


async def _answer(
    name: str, function: Callable[..., Awaitable[Mapping[str, Any]]], disk: Disk, /, **members: Any
) -> Answer:
    with _readable(disk):
        return aws_json.answer(name, await function(**members))


def _refusal(error: AWSError, service: str, call: Call, scope: Scope) -> Reply:
    call.code, call.problem = error.code, error.message
    shape, body = shaped(error, service, scope, call.request_id.decode())
    return Reply(error.status, shape, body)


async def _no_mlflow() -> str | None:
    return None


async def _send(reply: Reply, call: Call, scope: Scope, send: Send) -> None:
    call.status = reply.status
    names = {name for name, _ in reply.headers}
    headers = [(name, value) for name, value in reply.headers if name not in (b"connection", b"transfer-encoding")]
    if scope["method"] != "HEAD":
        headers = [each for each in headers if each[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(reply.body)))
    if b"x-amzn-requestid" not in names:
        headers.append((b"x-amzn-requestid", call.request_id))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
