"""The composition root: from settings to a running server. The only module that imports everything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from emulator import management
from emulator.inference.model_server import ModelServer
from emulator.job import JobArn
from emulator.operations import OPENAI_PREFIXES, OPERATIONS, Runtime
from emulator.protocol.endpoint import Authenticate, Authorize, Endpoint, error_answer, new_request_id, respond
from emulator.protocol.errors import (
    AccessDeniedException,
    UnknownOperationException,
    openai_body,
    rest_json_body,
)
from emulator.protocol.service_model import load_service_model
from emulator.settings import InvalidSetting, Settings
from emulator.store import Store

#: Below these, an OpenAI client is asking.
_OPENAI = tuple(f"{prefix}/" for prefix in OPENAI_PREFIXES if prefix)


class App:
    """The emulator as an ASGI application. `start` before it serves, `aclose` after."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSetting for a model server that cannot be."""
        self.settings = settings
        address = settings.address.absolute() if isinstance(settings.address, Path) else settings.address
        self.store = Store(
            None if settings.durability == "memory" else address,
            durability=settings.durability,
            create_trajectories=settings.trajectories == "implicit",
            any_job=settings.jobs == "any",
        )
        self.model_server = make_model_server(settings)
        runtime = Runtime(self.store, self.model_server, settings.max_answer_bytes, settings.max_in_flight)
        # The runtime's paths are looked up here, before Starlette's router: they are the hot path.
        authenticate, authorize = _authentication(settings), _authorization(settings)
        self._endpoints = {
            path: Endpoint(
                partial(operation.function, runtime),
                load_service_model().operations[operation.model] if operation.model else None,
                method=operation.method,
                openai=operation.openai,
                authenticate=authenticate,
                authorize=authorize,
                max_request_bytes=settings.max_request_bytes,
            )
            for operation in OPERATIONS
            for path in operation.paths
        }
        self._starlette = Starlette(
            routes=[Mount("/_emulator", routes=management.routes(self.store, self.model_server, settings))],
            exception_handlers={404: _not_found, 405: _not_found},
        )
        self._starlette.router.redirect_slashes = False

    async def start(self) -> None:
        """Open the database and start the model server. Raises DatabaseError, ModelServerError."""
        await self.store.start()
        try:
            await self.model_server.start()
        except BaseException:
            await self.store.aclose()
            raise

    async def aclose(self) -> None:
        """End the model server, commit what is waiting, and let the database go."""
        try:
            await self.model_server.aclose()
        finally:
            await self.store.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope["path"]
        if (endpoint := self._endpoints.get(path)) is not None:
            await endpoint(scope, receive, send)
        elif path.startswith("/_emulator"):
            await self._starlette(scope, receive, send)
        else:
            error = UnknownOperationException(f"{scope['method']} {path} is not an operation of this service")
            shape = openai_body if path.startswith(_OPENAI) else rest_json_body
            await respond(error_answer(error, shape), new_request_id(), scope, send)


def make_model_server(settings: Settings) -> ModelServer:
    """The model server that `--model` names. Raises InvalidSetting."""
    kind, _, rest = settings.model.partition(":")
    try:
        match kind:
            case "scripted" if not rest:
                from emulator.inference.scripted import ScriptedServer

                return ScriptedServer()
            case "http" | "https":
                return _remote_server(settings, settings.model)
            case "vllm":
                from emulator.inference.vllm import VLLMServer, parse_vllm

                model, arguments = parse_vllm(rest)
                return VLLMServer(
                    model=model,
                    arguments=arguments,
                    python=settings.vllm_python,
                    log_file=Path(settings.vllm_log),
                    connect=partial(_remote_server, settings),
                )
            case "cassette":
                raise InvalidSetting("model: cassette:FILE, to record and replay, is not there yet")
    except ValueError as error:
        raise InvalidSetting(f"model: {error}") from None
    raise InvalidSetting(f"model: {kind!r} is none of 'scripted', 'http://HOST:PORT', 'vllm:MODEL [extra arguments]'")


def _remote_server(settings: Settings, url: str) -> ModelServer:
    from emulator.inference.remote import RemoteServer

    return RemoteServer(
        url,
        connect_timeout=settings.model_connect_timeout,
        answer_timeout=settings.model_answer_timeout,
        idle_timeout=settings.model_idle_timeout,
        api_key=settings.model_api_key,
        rewrite_model=settings.rewrite_model,
    )


def _authentication(settings: Settings) -> Authenticate:
    if settings.auth == "lenient":
        return lambda _scope, _body: None
    from emulator.protocol.auth import authenticate, parse_key_pair

    try:
        pairs = [parse_key_pair(text) for text in settings.key_pairs]
    except ValueError as error:
        raise InvalidSetting(f"key_pairs: {error}") from None
    key_pairs = {pair.access_key_id: pair for pair in pairs}

    def check(scope: Scope, body: bytes) -> None:
        authenticate(
            method=scope["method"],
            raw_path=scope["raw_path"],
            query_string=scope["query_string"],
            headers=scope["headers"],
            body=body,
            key_pairs=key_pairs,
            region=settings.region,
            now=datetime.now(UTC),
        )

    return check


def _authorization(settings: Settings) -> Authorize:
    if settings.auth == "lenient" or settings.account is None:
        return lambda _arguments: None

    def check(arguments: Mapping[str, Any]) -> None:
        if "job_arn" in arguments and JobArn.parse(arguments["job_arn"]).account != settings.account:
            # ASSUMED: the wording; OBSERVED: the error.
            raise AccessDeniedException(f"The caller may not use {arguments['job_arn']}")

    return check


async def _not_found(request: Request, _error: Exception) -> Response:
    error = UnknownOperationException(f"{request.method} {request.url.path} is not a page of the emulator")
    return management.to_response(error_answer(error))
