"""What stands around the runtime: the control plane and its jobs, the rest of AWS, MLflow, the emulator's own pages.

Who only samples waits for none of it: it is imported for the first request that is not the runtime's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from emulator.admission import Admission
from emulator.aws import OtherServices, service_of
from emulator.calls import MANAGEMENT, UNKNOWN, Calls
from emulator.control import ControlPlane
from emulator.faults import Faults
from emulator.inference.model_server import ModelServer
from emulator.metrics import Metrics
from emulator.mlflow import Pages, is_for_mlflow
from emulator.operations import OPENAI_PREFIXES
from emulator.protocol import aws_json
from emulator.protocol.endpoint import Endpoint, refuse, respond
from emulator.protocol.errors import UnknownOperationException, openai_body, rest_json_body
from emulator.settings import Settings
from emulator.store import Store
from emulator.trainer.mlflow.server import make_mlflow
from emulator.visitors import refuse_strangers

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

#: Below these, an OpenAI client is asking.
_OPENAI = tuple(f"{prefix}/" for prefix in OPENAI_PREFIXES if prefix)


class Surroundings:
    """Serves whatever is not the runtime's."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        *,
        store: Store,
        model_server: ModelServer,
        metrics: Metrics,
        calls: Calls,
        faults: Faults,
        admission: Admission,
        reset: Callable[[], Awaitable[None]],
    ) -> None:
        """`url`: where the server is reached; `reset` has all of it forget everything.

        Raises InvalidSetting for agents that are none, and for an MLflow that cannot be.
        """
        self._calls = calls
        self._mlflow = make_mlflow(settings)
        self._mlflow_pages = Pages(
            self._mlflow,
            url,
            authenticate=admission.authenticate,
            refuse_strangers=partial(refuse_strangers, settings=settings),
            max_request_bytes=settings.max_request_bytes,
        )
        self._other_services = OtherServices(
            settings, url, calls=calls, admission=admission, mlflow_url=self._mlflow_pages.url
        )
        self._control = ControlPlane(
            settings,
            store,
            url,
            mlflow=self._mlflow,
            calls=calls,
            admission=admission,
            created_function=self._other_services.created_function,
            tags_of_others=self._other_services.tags_of_others,
        )

        def routes() -> list[BaseRoute]:
            from emulator import management

            return management.routes(store, model_server, settings, metrics, faults, calls.conduct, reset=reset)

        self._routes = routes
        self._pages: Starlette | None = None
        self._one_imports = asyncio.Lock()

    async def start(self) -> None:
        """Go on with the jobs that a server before this one has left. Raises StoreError."""
        await self._control.start()

    def leave_off(self) -> None:
        """Begin to leave off where pipelines and jobs are, and begin with none: the server is stopping."""
        self._control.leave_off()

    async def break_off(self) -> None:
        """Leave pipelines and jobs off where they are: they are about to be forgotten."""
        await self._control.break_off()

    async def aclose(self) -> None:
        """Returns when jobs have been left off, MLflow has ended, and what is kept is let go."""
        try:
            await self._control.aclose()
            await self._mlflow_pages.aclose()
            if self._mlflow is not None:
                await self._mlflow.aclose()
        finally:
            await self._other_services.aclose()

    async def reset(self) -> None:
        """Forget what is not in the store."""
        await self._other_services.reset()

    async def serve(self, endpoint: Endpoint | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request. `endpoint`: the runtime's of its path, which may not be meant: a bucket may be named so."""
        path, service = scope["path"], service_of(scope)
        is_others = service not in (None, "sagemaker")
        if path == "/" and not is_others and (target := aws_json.target(scope["headers"])):
            endpoint = self._control.endpoints.get(target) or self._other_services.endpoints.get(target)
        if endpoint is not None and not is_others:
            await endpoint(scope, receive, send)
            return
        is_mlflow = is_for_mlflow(scope)
        is_page = path.startswith("/_emulator") or (path == "/metrics" and not is_others) or is_mlflow
        call = self._calls.begin(MANAGEMENT if is_page else UNKNOWN, scope)
        try:
            if is_mlflow:
                await self._mlflow_pages.serve(call, scope, receive, send)
            elif is_page:
                pages = self._pages or await self._first_page()
                await pages(scope, receive, send)
            elif service is not None:
                await self._other_services.serve(service, call, scope, receive, send)
            else:
                error = UnknownOperationException(f"{scope['method']} {path} is not an operation of this service")
                shape = openai_body if path.startswith(_OPENAI) else rest_json_body
                await respond(refuse(call, error, shape), call, scope)
        finally:
            self._calls.end(call, scope)

    async def _first_page(self) -> Starlette:
        """What serves pages, imported off the event loop."""
        async with self._one_imports:
            if self._pages is None:
                self._pages = await asyncio.to_thread(_make_pages, self._routes)
            return self._pages


def _make_pages(routes: Callable[[], list[BaseRoute]]) -> Starlette:
    from starlette.applications import Starlette

    from emulator import management

    async def not_found(request: Request, _error: Exception) -> Response:
        what = f"{request.method} {request.url.path}"
        return management.refuse(UnknownOperationException(f"{what} is not a page of the emulator"))

    starlette = Starlette(routes=routes(), exception_handlers={404: not_found, 405: not_found})
    starlette.router.redirect_slashes = False
    return starlette
