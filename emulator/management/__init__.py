"""`/_emulator/`: looking at what was captured, and making the emulator ready for a test.

Who may ask, `emulator.visitors` says.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from emulator import __version__
from emulator.calls import current_call
from emulator.conduct import Conduct
from emulator.faults import Faults
from emulator.inference.model_server import ModelServer
from emulator.management.captured import list_trajectories, settled_trajectory, show_trajectory, turn_bytes
from emulator.management.emulator import Emulator, json_answer
from emulator.management.faults import add_faults, clear_faults, list_faults
from emulator.management.registering import give_up_trajectory, register_job, register_trajectory
from emulator.management.stream import Stream
from emulator.management.verdict import show_verdict
from emulator.metrics import Metrics
from emulator.protocol.answer import Answer, StreamAnswer
from emulator.protocol.endpoint import ClientGone, error_answer
from emulator.protocol.errors import AWSError, InternalServiceError, ResourceNotFoundException, ValidationException
from emulator.scrape import Scrape, describe_database
from emulator.settings import Settings
from emulator.settings_sources import setting_fields
from emulator.store import Store, StoreError
from emulator.trajectory import UnknownJob, UnknownTrajectory
from emulator.visitors import refuse_strangers

log = logging.getLogger(__name__)


def routes(
    store: Store,
    model_server: ModelServer,
    settings: Settings,
    metrics: Metrics,
    faults: Faults,
    conduct: Conduct,
    *,
    reset: Callable[[], Awaitable[None]],
) -> list[BaseRoute]:
    """`/metrics`, and the routes below `/_emulator`. `reset`: breaks off jobs, and forgets everything."""
    scrape = Scrape(store, settings, metrics)
    emulator = Emulator(store, model_server, settings, metrics, scrape, faults, conduct, reset)
    table = (
        ("GET", "/health", _health),
        ("GET", "/info", _info),
        ("GET", "/trajectories", list_trajectories),
        ("GET", "/trajectories/{which:path}", show_trajectory),
        ("GET", "/turns/{which:path}", turn_bytes),
        ("GET", "/settled/{which:path}", settled_trajectory),
        ("GET", "/export", _export),
        ("POST", "/faults", add_faults),
        ("GET", "/faults", list_faults),
        ("DELETE", "/faults", clear_faults),
        ("GET", "/verdict", show_verdict),
        ("POST", "/reset", _reset),
        ("POST", "/jobs", register_job),
        ("POST", "/trajectories", register_trajectory),
        ("POST", "/give-up", give_up_trajectory),
    )
    pages = [Route(path, _endpoint(emulator, function), methods=[method]) for method, path, function in table]
    return [Mount("/_emulator", routes=pages), Route("/metrics", _endpoint(emulator, _metrics), methods=["GET"])]


def refuse(error: AWSError) -> Response:
    """An error as Starlette sends it."""
    call = current_call()
    call.code, call.problem = error.code, error.message
    return _to_response(error_answer(error))


def _to_response(answer: Answer | StreamAnswer) -> Response:
    """An answer as Starlette sends it, with what keeps a browser from taking it for anything but data."""
    call = current_call()
    call.status = answer.status
    headers = {}
    if isinstance(answer, Answer):
        headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
    headers["x-amzn-requestid"] = call.request_id.decode()
    headers["cache-control"] = "no-store"
    headers["x-content-type-options"] = "nosniff"
    if answer.content_type is not None:  # not as media_type: Starlette would add a charset
        headers["content-type"] = answer.content_type
    if isinstance(answer, StreamAnswer):
        return Stream(answer, headers)
    return Response(answer.body, answer.status, headers)


_Function = Callable[[Emulator, Request], Awaitable[Answer | StreamAnswer]]


def _endpoint(emulator: Emulator, function: _Function) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            refuse_strangers(request.scope, emulator.settings)
            return _to_response(await function(emulator, request))
        except ClientGone:
            return _to_response(Answer())
        except Exception as error:
            return refuse(_as_aws_error(error))

    return endpoint


def _as_aws_error(error: Exception) -> AWSError:
    match error:
        case AWSError():
            return error
        case UnknownTrajectory():
            return ResourceNotFoundException(str(error))
        case UnknownJob():
            return ValidationException(str(error))
        case StoreError():
            return InternalServiceError(str(error))
        case _:
            log.error("a management request failed", exc_info=error)
            return InternalServiceError("An internal error occurred; see the log")


async def _health(emulator: Emulator, _request: Request) -> Answer:
    if emulator.metrics.stopping:  # a load balancer shall take it away
        return json_answer({"status": "stopping", "detail": "no new samples are taken"}, 503)
    health = await emulator.model_server.health()
    document = {"status": "ready" if health.ready else "unavailable", "detail": health.detail}
    return json_answer(document, 200 if health.ready else 503)


async def _info(emulator: Emulator, _request: Request) -> Answer:
    settings = emulator.settings
    health = await emulator.model_server.health()
    shown = {each.name: getattr(settings, each.name) for each in setting_fields() if not each.is_secret}
    shown |= {"model": settings.shown_model, "record": settings.shown_record, "database": settings.shown_database}
    return json_answer(
        {
            "version": __version__,
            "settings": shown,
            "model_server": {"ready": health.ready, "detail": health.detail},
            "database": await describe_database(settings, emulator.store),
        }
    )


async def _metrics(emulator: Emulator, request: Request) -> Answer:
    return await emulator.scrape.answer(request.headers.get("accept", ""))


async def _export(emulator: Emulator, request: Request) -> Answer | StreamAnswer:
    from emulator.management.export import export_trajectories  # when it is first needed

    return await export_trajectories(emulator, request)


async def _reset(emulator: Emulator, _request: Request) -> Answer:
    await emulator.reset()
    return Answer()
