"""The composition root: from settings to a running server."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from emulator.admission import Admission
from emulator.calls import Calls
from emulator.faults import Fault, Faults
from emulator.inference.chosen import make_model_server
from emulator.metrics import Metrics
from emulator.operations import OPERATIONS, Operation, Runtime
from emulator.protocol.codec import decode
from emulator.protocol.endpoint import EXCHANGE, Decode, Endpoint, Exchange
from emulator.protocol.errors import openai_body, rest_json_body
from emulator.protocol.service_model import load_service_model
from emulator.settings import InvalidSetting, Settings
from emulator.store import Store
from emulator.tracing import make_tracing

if TYPE_CHECKING:
    from emulator.surroundings import Surroundings

#: Seconds in which requests that are broken off have to store their turns and say so.
LAST_WORDS = 5.0


class App:
    """The emulator as an ASGI application. `start` before it serves, `aclose` after."""

    def __init__(self, settings: Settings, url: str) -> None:
        """`url`: where it will be reached.

        Raises InvalidSetting for what cannot be: a model server, a plan of faults, agents, an MLflow, key pairs.
        """
        self.settings = settings
        self._url = url
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
        self._admission = Admission.of(settings)
        self._endpoints = {
            path: Endpoint(
                operation.name,
                partial(operation.function, runtime),
                _decoder(operation),
                calls=self._calls,
                method=operation.method,
                error_body=openai_body if operation.openai else rest_json_body,
                authenticate=self._admission.authenticate,
                authorize=self._admission.authorize,
                max_request_bytes=settings.max_request_bytes,
            )
            for operation in OPERATIONS
            for path in operation.paths
        }
        self.faults = Faults(_plan(settings), switch=self._switch_faults)
        self.faults.restore()
        self._surroundings: Surroundings | None = None
        self._one_imports = asyncio.Lock()
        if settings.agents or settings.mlflow not in ("serve", "off"):  # whoever names one hears now if it cannot be
            self._surroundings = self._make_surroundings()
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
            if self.store.is_shared or await self.store.has_jobs():
                await (await self._around()).start()
        except BaseException:
            await self.store.aclose()
            raise

    async def aclose(self) -> None:
        """End the model server, commit what is waiting, and let the database go."""
        try:
            if self._surroundings is not None:
                await self._surroundings.aclose()
            await self.model_server.aclose()
        finally:
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
        if self._surroundings is not None:
            self._surroundings.leave_off()  # before those who wait for agents are told to go on
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
        await self._forget()

    async def _forget(self) -> None:
        """Break off jobs, and forget everything but the requests under way. Raises StoreError."""
        if self._surroundings is not None:
            await self._surroundings.break_off()
        await self.store.reset()
        if self._surroundings is not None or self.settings.durability != "memory":  # a file may be left
            await (await self._around()).reset()
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
                around = self._surroundings or await self._around()
                await around.serve(endpoint, scope, receive, send)
            else:
                await endpoint(scope, receive, send)
        finally:
            self._open.discard(exchange)
            del scope["extensions"]  # a ring of references, in which bodies would wait for the garbage collector
            if self.metrics.stopping:
                self._one_ended.set()

    async def _around(self) -> Surroundings:
        """What serves all else, imported off the event loop by the first who needs it."""
        async with self._one_imports:
            if self._surroundings is None:
                await asyncio.to_thread(import_module, "emulator.surroundings")
                self._surroundings = self._make_surroundings()
                if self.metrics.stopping:
                    self._surroundings.leave_off()
            return self._surroundings

    def _make_surroundings(self) -> Surroundings:
        from emulator.surroundings import Surroundings

        return Surroundings(
            self.settings,
            self._url,
            store=self.store,
            model_server=self.model_server,
            metrics=self.metrics,
            calls=self._calls,
            faults=self.faults,
            admission=self._admission,
            reset=self._forget,
        )


def _decoder(operation: Operation) -> Decode | None:
    if operation.model is None:
        return None
    model = load_service_model().operations[operation.model]
    return partial(decode, model.only(signature(operation.function).parameters))


def _plan(settings: Settings) -> tuple[Fault, ...]:
    """The faults of `--faults`. Raises InvalidSetting."""
    if settings.faults is None:
        return ()
    from emulator.faults.plan import InvalidPlan, read_plan

    try:
        return read_plan(Path(settings.faults))
    except InvalidPlan as error:
        raise InvalidSetting(f"faults: {error}") from None
