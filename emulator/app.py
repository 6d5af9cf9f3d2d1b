"""The composition root: from settings to a running server. The only module that imports everything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from emulator.aws import OtherServices, service_of
from emulator.aws.services import Verify
from emulator.calls import MANAGEMENT, UNKNOWN, Calls
from emulator.control import ControlPlane
from emulator.faults import Fault, Faults
from emulator.inference.chosen import make_model_server
from emulator.job import JobArn
from emulator.metrics import Metrics
from emulator.mlflow import Pages, is_for_mlflow
from emulator.operations import OPENAI_PREFIXES, OPERATIONS, Runtime
from emulator.protocol import aws_json
from emulator.protocol.codec import decode
from emulator.protocol.endpoint import (
    EXCHANGE,
    Authenticate,
    Authorize,
    Endpoint,
    Exchange,
    refuse,
    respond,
)
from emulator.protocol.errors import (
    AccessDeniedException,
    UnknownOperationException,
    openai_body,
    rest_json_body,
)
from emulator.protocol.service_model import load_service_model
from emulator.settings import InvalidSetting, Settings
from emulator.store import Store
from emulator.tracing import make_tracing
from emulator.trainer.mlflow.server import make_mlflow
from emulator.visitors import refuse_strangers

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

#: Below these, an OpenAI client is asking.
_OPENAI = tuple(f"{prefix}/" for prefix in OPENAI_PREFIXES if prefix)

#: Services without a region: requests for them are signed for the one where they are at home.
_GLOBAL = frozenset({"cloudfront", "iam", "route53", "sts"})

#: Seconds in which requests that are broken off have to store their turns and say so.
LAST_WORDS = 5.0


class App:
    """The emulator as an ASGI application. `start` before it serves, `aclose` after."""

    def __init__(self, settings: Settings, url: str) -> None:
        """`url`: where it will be reached.

        Raises InvalidSetting for a model server that cannot be, and for a wrong plan of faults.
        """
        self.settings = settings
        address = settings.address.absolute() if isinstance(settings.address, Path) else settings.address
        self.store = Store(
            None if settings.durability == "memory" else address,
            durability=settings.durability,
            create_trajectories=settings.trajectories == "implicit",
            any_job=settings.jobs == "any",
            patience=settings.database_timeout,
        )
        self.model_server = make_model_server(settings)
        self.metrics = Metrics()
        self._tracing = make_tracing(os.environ)
        self._calls = Calls(self.metrics, self._tracing)
        self.conduct = self._calls.conduct
        self._runtime = runtime = Runtime(
            self.store, self.model_server, self.metrics, settings.max_answer_bytes, settings.max_in_flight
        )
        # The runtime's paths are looked up here, before Starlette's router: they are the hot path.
        authenticate, authorize = _authentication(settings), _authorization(settings)
        self._endpoints = {
            path: Endpoint(
                operation.name,
                partial(operation.function, runtime),
                partial(decode, load_service_model().operations[operation.model]) if operation.model else None,
                calls=self._calls,
                method=operation.method,
                error_body=openai_body if operation.openai else rest_json_body,
                authenticate=authenticate,
                authorize=authorize,
                max_request_bytes=settings.max_request_bytes,
            )
            for operation in OPERATIONS
            for path in operation.paths
        }
        self._mlflow = make_mlflow(settings)
        self._mlflow_pages = Pages(
            self._mlflow,
            url,
            authenticate=authenticate,
            refuse_strangers=partial(refuse_strangers, settings=settings),
            max_request_bytes=settings.max_request_bytes,
        )
        self.other_services = OtherServices(
            settings,
            url,
            calls=self._calls,
            authenticate=authenticate,
            authorize=authorize,
            verify=_verification(settings),
            mlflow_url=self._mlflow_pages.url,
        )
        self._control = ControlPlane(
            settings,
            self.store,
            url,
            mlflow=self._mlflow,
            calls=self._calls,
            authenticate=authenticate,
            authorize=authorize,
            created_function=self.other_services.created_function,
            tags_of_others=self.other_services.tags_of_others,
        )
        self.faults = Faults(_plan(settings), switch=self._switch_faults)
        self.faults.restore()
        self._starlette: Starlette | None = None  # who samples does not wait for its import
        self._one_imports = asyncio.Lock()
        self._open: set[Exchange] = set()  # requests under way
        self._one_ended = asyncio.Event()

    def _switch_faults(self, is_on: bool) -> None:
        """Put what has calls suffer faults in their way, or take it out: who wants none pays nothing for it."""
        if not is_on:
            self._runtime.model_server = self.model_server
            for endpoint in self._endpoints.values():
                endpoint.interfere = None
            return
        from emulator.faults.interference import Interference
        from emulator.faults.model import FaultyModelServer

        self._runtime.model_server = FaultyModelServer(
            self.model_server,
            answer_timeout=self.settings.model_answer_timeout,
            idle_timeout=self.settings.model_idle_timeout,
        )
        interference = Interference(self.faults)
        for operation in OPERATIONS:
            for path in operation.paths if operation.model else ():
                self._endpoints[path].interfere = interference

    async def start(self) -> None:
        """Open the database and start the model server. Raises DatabaseError, ModelServerError."""
        await self.store.start()
        try:
            await self.model_server.start()
            await self._control.start()
        except BaseException:
            await self.store.aclose()
            raise

    async def aclose(self) -> None:
        """End the model server, commit what is waiting, and let the database go."""
        try:
            await self._control.aclose()
            await self._mlflow_pages.aclose()
            if self._mlflow is not None:
                await self._mlflow.aclose()
            await self.model_server.aclose()
        finally:
            await self.other_services.aclose()
            await self.store.aclose()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)

    @property
    def open_requests(self) -> int:
        """How many requests are under way."""
        return len(self._open)

    def refuse_samples(self) -> None:
        """Take no new samples, and let each connection end with the answer that it is at."""
        self.metrics.stopping = True
        self._control.leave_off()  # before those who wait for agents are told to go on
        self.store.end_waiting()
        for exchange in self._open:
            exchange.keep_alive = False

    async def drained(self) -> None:
        """Returns when the requests that are under way now have ended. After `refuse_samples`."""
        of_now = set(self._open)
        while of_now & self._open:
            self._one_ended.clear()
            await self._one_ended.wait()

    async def abort(self) -> None:
        """Break off every request; returns when their turns are stored, or LAST_WORDS later. After `refuse_samples`."""
        for exchange in self._open:
            exchange.task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await self.drained()

    async def reset(self) -> None:
        """Break off every request, and forget everything. Raises StoreError."""
        tasks = [exchange.task for exchange in self._open]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)
        await self.forget()

    async def forget(self) -> None:
        """Break off jobs, and forget everything but the requests under way. Raises StoreError."""
        await self._control.break_off()
        await self.store.reset()
        await self.other_services.reset()
        self.model_server.reset()
        self.faults.restore()
        self.conduct.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange: Exchange = scope["extensions"][EXCHANGE]
        self._open.add(exchange)
        try:
            if self.metrics.stopping:
                exchange.keep_alive = False
            endpoint = self._endpoints.get(scope["path"])
            # A bucket may be named `sample`.
            if endpoint is None or scope["method"] != endpoint.method or scope["query_string"]:
                await self._serve_other(endpoint, scope, receive, send)
            else:
                await endpoint(scope, receive, send)
        finally:
            self._open.discard(exchange)
            del scope["extensions"]  # a ring of references, in which bodies would wait for the garbage collector
            if self.metrics.stopping:
                self._one_ended.set()

    async def _serve_other(self, endpoint: Endpoint | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is none of the runtime's operations. `endpoint`: of the path, though it may not be meant."""
        path, service = scope["path"], service_of(scope)
        is_others = service not in (None, "sagemaker")
        if path == "/" and not is_others and (target := aws_json.target(scope["headers"])):
            endpoint = self._control.endpoints.get(target) or self.other_services.endpoints.get(target)
        if endpoint is not None and not is_others:
            await endpoint(scope, receive, send)
            return
        is_mlflow = is_for_mlflow(scope)
        is_page = path.startswith("/_emulator") or (path == "/metrics" and not is_others) or is_mlflow
        call = self._calls.begin(MANAGEMENT if is_page else UNKNOWN, scope)
        try:
            if is_mlflow:
                await self._mlflow_pages.serve(call, scope, receive, send)
                return
            if is_page:
                starlette = self._starlette or await self._first_page()
                await starlette(scope, receive, send)
            elif service is not None:
                await self.other_services.serve(service, call, scope, receive, send)
            else:
                error = UnknownOperationException(f"{scope['method']} {path} is not an operation of this service")
                shape = openai_body if path.startswith(_OPENAI) else rest_json_body
                await respond(refuse(call, error, shape), call, scope)
        finally:
            self._calls.end(call, scope)

    async def _first_page(self) -> Starlette:
        """What serves pages, imported off the event loop."""
        async with self._one_imports:
            if self._starlette is None:
                self._starlette = await asyncio.to_thread(self._pages)
            return self._starlette

    def _pages(self) -> Starlette:
        from starlette.applications import Starlette

        from emulator import management

        async def not_found(request: Request, _error: Exception) -> Response:
            what = f"{request.method} {request.url.path}"
            return management.refuse(UnknownOperationException(f"{what} is not a page of the emulator"))

        pages = management.routes(
            self.store,
            self.model_server,
            self.settings,
            self.metrics,
            self.faults,
            self.conduct,
            reset=self.forget,
        )
        starlette = Starlette(routes=pages, exception_handlers={404: not_found, 405: not_found})
        starlette.router.redirect_slashes = False
        return starlette


def _plan(settings: Settings) -> tuple[Fault, ...]:
    """The faults of `--faults`. Raises InvalidSetting."""
    if settings.faults is None:
        return ()
    from emulator.faults.plan import InvalidPlan, read_plan

    try:
        return read_plan(Path(settings.faults))
    except InvalidPlan as error:
        raise InvalidSetting(f"faults: {error}") from None


def _authentication(settings: Settings) -> Authenticate:
    verify = _verification(settings)
    if verify is None:
        return lambda _scope, _body: None
    return lambda scope, body: verify(scope, "sagemaker", sha256(body).hexdigest().encode())


def _verification(settings: Settings) -> Verify | None:
    """Checks who sends a request for a service; None if nobody has to prove anything."""
    if settings.auth == "lenient":
        return None
    from emulator.protocol.auth import authenticate, parse_key_pair

    try:
        pairs = [parse_key_pair(text) for text in settings.key_pairs]
    except ValueError as error:
        raise InvalidSetting(f"key_pairs: {error}") from None
    key_pairs = {pair.access_key_id: pair for pair in pairs}

    def verify(scope: Scope, service: str, payload_hash: bytes) -> None:
        authenticate(
            method=scope["method"],
            raw_path=scope["raw_path"],
            query_string=scope["query_string"],
            headers=scope["headers"],
            payload_hash=payload_hash,
            key_pairs=key_pairs,
            region=None if service in _GLOBAL else settings.region,
            now=datetime.now(UTC),
            service=service,
        )

    return verify


def _authorization(settings: Settings) -> Authorize:
    if settings.auth == "lenient" or settings.account is None:
        return lambda _arguments: None

    def check(arguments: Mapping[str, Any]) -> None:
        if "job_arn" in arguments and JobArn.parse(arguments["job_arn"]).account != settings.account:
            # ASSUMED: the wording; OBSERVED: the error.
            raise AccessDeniedException(f"The caller may not use {arguments['job_arn']}")

    return check
