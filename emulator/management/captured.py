"""Looking at what was captured."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection
from starlette.requests import Request

from emulator.documents import parse_time, trajectory_document, trajectory_summary
from emulator.job import JobArn
from emulator.management.emulator import Emulator, json_answer
from emulator.protocol.answer import Answer
from emulator.protocol.errors import ResourceNotFoundException, ValidationException
from emulator.store import queries
from emulator.store.queries import TrajectoryFilter, TrajectoryRecord, TurnRecord
from emulator.trajectory import Status, UnknownTrajectory

DEFAULT_LIMIT = 50
MAX_LIMIT = 500

#: The longest that an answer waits for something to happen.
MAX_SECONDS = 60

# An ARN has no other slashes than these; a trajectory id may have any.
_ARN = r"(?P<job_arn>arn:[^/\0]*:job/[^/\0]+/[^/\0]+)"
_TRAJECTORY = re.compile(_ARN + r"/(?P<trajectory_id>[^\0]+)")
_TURN = re.compile(_ARN + r"/(?P<trajectory_id>[^\0]+)/(?P<number>[0-9]{1,9})/(?P<side>request|response)")


async def list_trajectories(emulator: Emulator, request: Request) -> Answer:
    """A page of trajectories, the newest first."""
    given = read_parameters(request.query_params, _PARAMETERS)
    which = TrajectoryFilter(given.get("job"), given.get("status"), given.get("since"), given.get("until"))
    limit = given.get("limit", DEFAULT_LIMIT)
    # One more than asked for tells whether there is another page.
    found = await emulator.store.read(queries.list_trajectories, which, limit=limit + 1, before=given.get("next"))
    page = found[:limit]
    following = _token(page[-1].id) if len(found) > limit else None
    return json_answer({"trajectories": [trajectory_summary(record) for record in page], "next": following})


async def show_trajectory(emulator: Emulator, request: Request) -> Answer:
    """One trajectory, with its turns decoded."""
    match = _TRAJECTORY.fullmatch(request.path_params["which"])
    if match is None:
        raise ResourceNotFoundException("Ask for /_emulator/trajectories/JOB_ARN/TRAJECTORY_ID, percent-encoded")
    record, turns = await emulator.store.read(_with_turns, match["job_arn"], match["trajectory_id"])
    return await asyncio.to_thread(lambda: json_answer(trajectory_document(record, turns)))


async def settled_trajectory(emulator: Emulator, request: Request) -> Answer:
    """One trajectory without its turns: when its agent has settled it, or `seconds` (at most 60, or 20) have passed."""
    match = _TRAJECTORY.fullmatch(request.path_params["which"])
    if match is None:
        raise ResourceNotFoundException("Ask for /_emulator/settled/JOB_ARN/TRAJECTORY_ID, percent-encoded")
    seconds = _read_seconds(request.query_params.get("seconds", "20"))
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await emulator.store.settled(match["job_arn"], match["trajectory_id"])
    record = await emulator.store.read(_find, match["job_arn"], match["trajectory_id"])
    return json_answer(trajectory_summary(record))


async def turn_bytes(emulator: Emulator, request: Request) -> Answer:
    """The exact bytes of one side of a turn."""
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


def read_parameters(given: Mapping[str, str], readers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """The parameters of a request, read. Raises ValidationException."""
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


def _read_seconds(text: str) -> float:
    """Raises ValidationException."""
    if not re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?", text) or float(text) > MAX_SECONDS:
        raise ValidationException(f"seconds: {text!r} is not a number up to {MAX_SECONDS}")
    return float(text)


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


#: Those that say which trajectories are meant.
FILTER_PARAMETERS: Mapping[str, Callable[[str], Any]] = {
    "job": _read_job,
    "status": _read_status,
    "since": parse_time,
    "until": parse_time,
}

_PARAMETERS = {**FILTER_PARAMETERS, "limit": _read_limit, "next": _read_token}
