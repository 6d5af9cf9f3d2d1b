"""`/_emulator/`: looking at what was captured, and making the emulator ready for a test.

Who may ask, `emulator.visitors` says.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from emulator import __version__
from emulator.calls import current_call
from emulator.documents import parse_time, to_json, trajectory_document, trajectory_summary
from emulator.inference.model_server import ModelServer
from emulator.job import JobArn
from emulator.metrics import Metrics
from emulator.protocol.answer import Answer
from emulator.protocol.codec import decode
from emulator.protocol.endpoint import ClientGone, error_answer, read_body
from emulator.protocol.errors import (
    AWSError,
    InternalServiceError,
    ResourceNotFoundException,
    ValidationException,
)
from emulator.protocol.service_model import OperationModel, load_service_model
from emulator.scrape import Scrape, describe_database
from emulator.settings import Settings, setting_fields
from emulator.store import Store, StoreError, queries
from emulator.store.queries import TrajectoryFilter, TrajectoryRecord, TurnRecord
from emulator.trajectory import Status, UnknownJob, UnknownTrajectory
from emulator.visitors import refuse_strangers

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

# An ARN has no other slashes than these; a trajectory id may have any.
_ARN = r"(?P<job_arn>arn:[^/\0]*:job/[^/\0]+/[^/\0]+)"
_TRAJECTORY = re.compile(_ARN + r"/(?P<trajectory_id>[^\0]+)")
_TURN = re.compile(_ARN + r"/(?P<trajectory_id>[^\0]+)/(?P<number>[0-9]{1,9})/(?P<side>request|response)")
#: What no header can carry, so that no Sample could ever find the trajectory.
_NO_HEADER = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Emulator:
    """What there is to manage."""

    store: Store
    model_server: ModelServer
    settings: Settings
    metrics: Metrics
    scrape: Scrape


def routes(store: Store, model_server: ModelServer, settings: Settings, metrics: Metrics) -> list[BaseRoute]:
    """`/metrics`, and the routes below `/_emulator`."""
    emulator = _Emulator(store, model_server, settings, metrics, Scrape(store, settings, metrics))
    table = (
        ("GET", "/health", _health),
        ("GET", "/info", _info),
        ("GET", "/trajectories", _list_trajectories),
        ("GET", "/trajectories/{which:path}", _show_trajectory),
        ("GET", "/turns/{which:path}", _turn_bytes),
        ("POST", "/reset", _reset),
        ("POST", "/jobs", _register_job),
        ("POST", "/trajectories", _register_trajectory),
    )
    pages = [Route(path, _endpoint(emulator, function), methods=[method]) for method, path, function in table]
    return [Mount("/_emulator", routes=pages), Route("/metrics", _endpoint(emulator, _metrics), methods=["GET"])]


def refuse(error: AWSError) -> Response:
    """An error as Starlette sends it."""
    call = current_call()
    call.code, call.problem = error.code, error.message
    return _to_response(error_answer(error))


def _to_response(answer: Answer) -> Response:
    """An answer as Starlette sends it, with what keeps a browser from taking it for anything but data."""
    call = current_call()
    call.status = answer.status
    headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
    headers["x-amzn-requestid"] = call.request_id.decode()
    headers["cache-control"] = "no-store"
    headers["x-content-type-options"] = "nosniff"
    if answer.content_type is not None:  # not as media_type: Starlette would add a charset
        headers["content-type"] = answer.content_type
    return Response(answer.body, answer.status, headers)


_Function = Callable[[_Emulator, Request], Awaitable[Answer]]


def _endpoint(emulator: _Emulator, function: _Function) -> Callable[[Request], Awaitable[Response]]:
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


def _json(document: object, status: int = 200) -> Answer:
    return Answer(to_json(document).encode(), status)


async def _health(emulator: _Emulator, _request: Request) -> Answer:
    if emulator.metrics.stopping:  # a load balancer shall take it away
        return _json({"status": "stopping", "detail": "no new samples are taken"}, 503)
    health = await emulator.model_server.health()
    document = {"status": "ready" if health.ready else "unavailable", "detail": health.detail}
    return _json(document, 200 if health.ready else 503)


async def _info(emulator: _Emulator, _request: Request) -> Answer:
    settings = emulator.settings
    health = await emulator.model_server.health()
    shown = {each.name: getattr(settings, each.name) for each in setting_fields() if not each.is_secret}
    shown |= {"model": settings.shown_model, "database": settings.shown_database}
    return _json(
        {
            "version": __version__,
            "settings": shown,
            "model_server": {"ready": health.ready, "detail": health.detail},
            "database": await describe_database(settings, emulator.store),
        }
    )


async def _metrics(emulator: _Emulator, request: Request) -> Answer:
    return await emulator.scrape.answer(request.headers.get("accept", ""))


async def _list_trajectories(emulator: _Emulator, request: Request) -> Answer:
    given = _parameters(request.query_params)
    which = TrajectoryFilter(given.get("job"), given.get("status"), given.get("since"), given.get("until"))
    limit = given.get("limit", DEFAULT_LIMIT)
    # One more than asked for tells whether there is another page.
    found = await emulator.store.read(queries.list_trajectories, which, limit=limit + 1, before=given.get("next"))
    page = found[:limit]
    following = _token(page[-1].id) if len(found) > limit else None
    return _json({"trajectories": [trajectory_summary(record) for record in page], "next": following})


async def _show_trajectory(emulator: _Emulator, request: Request) -> Answer:
    match = _TRAJECTORY.fullmatch(request.path_params["which"])
    if match is None:
        raise ResourceNotFoundException("Ask for /_emulator/trajectories/JOB_ARN/TRAJECTORY_ID, percent-encoded")
    record, turns = await emulator.store.read(_with_turns, match["job_arn"], match["trajectory_id"])
    return await asyncio.to_thread(lambda: _json(trajectory_document(record, turns)))


async def _turn_bytes(emulator: _Emulator, request: Request) -> Answer:
    match = _TURN.fullmatch(request.path_params["which"])
    if match is None:
        raise ResourceNotFoundException(
            "Ask for /_emulator/turns/JOB_ARN/TRAJECTORY_ID/NUMBER/request or …/response, percent-encoded"
        )
    key = (match["job_arn"], match["trajectory_id"])
    turn = await emulator.store.read(_one_turn, *key, int(match["number"]))
    if turn is None:
        raise ResourceNotFoundException(f"Trajectory {key[1]} of job {key[0]} has no turn {match['number']}")
    is_request = match["side"] == "request"
    content_type = "application/json" if is_request else turn.content_type or "application/octet-stream"
    # Whatever a model or an agent wrote: not for a browser to show as a page of ours.
    headers = (
        (b"content-disposition", f'attachment; filename="turn-{turn.number}-{match["side"]}"'.encode()),
        (b"content-security-policy", b"default-src 'none'; sandbox"),
    )
    body = turn.request if is_request else turn.response
    return Answer(body, content_type=re.sub(r"[^ -~]", "?", content_type), headers=headers)


async def _reset(emulator: _Emulator, _request: Request) -> Answer:
    await emulator.store.reset()
    return Answer()


async def _register_job(emulator: _Emulator, request: Request) -> Answer:
    members = await _body(request, emulator.settings, "job_arn")
    await emulator.store.register_job(members["job_arn"])
    return Answer()


async def _register_trajectory(emulator: _Emulator, request: Request) -> Answer:
    members = await _body(request, emulator.settings, "job_arn", "trajectory_id")
    if _NO_HEADER.search(members["trajectory_id"]):
        raise ValidationException("trajectory_id holds characters that no header can carry")
    await emulator.store.register_trajectory(members["job_arn"], members["trajectory_id"])
    return Answer()


def _find(connection: Connection, job_arn: str, trajectory_id: str) -> TrajectoryRecord:
    found = queries.find_trajectories(connection, trajectory_id, job_arn)
    if not found:
        raise UnknownTrajectory(job_arn, trajectory_id)
    return found[0]


def _with_turns(connection: Connection, job_arn: str, trajectory_id: str) -> tuple[TrajectoryRecord, list[TurnRecord]]:
    record = _find(connection, job_arn, trajectory_id)
    return record, queries.turns_of(connection, record)


def _one_turn(connection: Connection, job_arn: str, trajectory_id: str, number: int) -> TurnRecord | None:
    return queries.find_turn(connection, _find(connection, job_arn, trajectory_id), number)


async def _body(request: Request, settings: Settings, *keywords: str) -> dict[str, Any]:
    """These members of a JSON body. Raises SerializationException, ValidationException, ClientGone."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    body = await read_body(headers, request.scope, request.receive, settings.max_request_bytes)
    return decode(_input(keywords), {}, body)


def _input(keywords: tuple[str, ...]) -> OperationModel:
    """Members that the service model constrains, under the names that they have here."""
    operation = load_service_model().operations["CompleteRollout"]
    members = [member for member in operation.members if member.keyword in keywords]
    return replace(operation, members=tuple(replace(each, name=each.keyword, header=None) for each in members))


def _parameters(given: Mapping[str, str]) -> dict[str, Any]:
    """A listing's parameters, read. Raises ValidationException."""
    readers: dict[str, Callable[[str], Any]] = {
        "job": _read_job,
        "status": _read_status,
        "since": parse_time,
        "until": parse_time,
        "limit": _read_limit,
        "next": _read_token,
    }
    values = {}
    for name, text in given.items():
        if name not in readers:
            raise ValidationException(f"There is no parameter {name!r}; there are {', '.join(readers)}")
        try:
            values[name] = readers[name](text)
        except ValueError as error:
            raise ValidationException(f"{name}: {error}") from None
    return values


def _read_job(text: str) -> str:
    return str(JobArn.parse(text))


def _read_status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError:
        raise ValueError(f"{text!r} is none of {', '.join(Status)}") from None


def _read_limit(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"{text!r} is not a number from 1 to {MAX_LIMIT}")
    return int(text)


def _token(last: int) -> str:
    return base64.urlsafe_b64encode(json.dumps({"before": last}).encode()).decode()


def _read_token(text: str) -> int:
    try:
        last = json.loads(base64.urlsafe_b64decode(text))["before"]
    except (binascii.Error, ValueError, TypeError, KeyError):
        last = None
    if type(last) is not int or not 0 < last < 1 << 63:
        raise ValueError("is not what an answer gave as next")
    return last
