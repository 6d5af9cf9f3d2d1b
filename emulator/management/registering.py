"""What a trainer does with rollouts: making them and their jobs known before the first Sample, and giving them up."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from starlette.requests import Request

from emulator.management.emulator import Emulator, json_answer
from emulator.protocol.answer import Answer
from emulator.protocol.codec import decode
from emulator.protocol.endpoint import read_body
from emulator.protocol.errors import SerializationException, ValidationException
from emulator.protocol.service_model import OperationModel, load_service_model
from emulator.settings import Settings

#: What no header can carry, so that no Sample could ever find the trajectory.
_NO_HEADER = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


async def register_job(emulator: Emulator, request: Request) -> Answer:
    """`{"job_arn"}`: a job that there is, for `--jobs strict`."""
    members = decode(_input("job_arn"), {}, await _body(request, emulator.settings))
    await emulator.store.register_job(members["job_arn"])
    return Answer()


async def register_trajectory(emulator: Emulator, request: Request) -> Answer:
    """`{"job_arn", "trajectory_id", "group"?, "instance"?}`: a rollout that is about to be sent to its agent."""
    body = await _body(request, emulator.settings)
    members = decode(_input("job_arn", "trajectory_id"), {}, body)
    if _NO_HEADER.search(members["trajectory_id"]):
        raise ValidationException("trajectory_id holds characters that no header can carry")
    await emulator.store.register_trajectory(
        members["job_arn"], members["trajectory_id"], group=members["group"], instance=_instance(body)
    )
    return Answer()


async def give_up_trajectory(emulator: Emulator, request: Request) -> Answer:
    """`{"job_arn", "trajectory_id"}`: seal a rollout as failed, unless its agent has sealed it: `{"sealed": …}`."""
    members = decode(_input("job_arn", "trajectory_id"), {}, await _body(request, emulator.settings))
    sealed = await emulator.store.give_up(members["job_arn"], members["trajectory_id"])
    return json_answer({"sealed": sealed})


def _instance(body: bytes) -> str | None:
    """The dataset's row, as it is stored. Raises SerializationException."""
    instance = json.loads(body).get("instance")
    if instance is None:
        return None
    if not isinstance(instance, dict):
        raise SerializationException("instance must be a JSON object: a row of the dataset")
    try:
        return json.dumps(instance, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):  # Python's reader takes more than JSON
        raise SerializationException("instance holds what JSON cannot say") from None


async def _body(request: Request, settings: Settings) -> bytes:
    """Raises ValidationException, ClientGone."""
    headers: dict[bytes, bytes] = dict(request.scope["headers"])
    return await read_body(headers, request.scope, request.receive, settings.max_request_bytes)


def _input(*keywords: str) -> OperationModel:
    """Members that the service model constrains, under the names that they have here; and a group's name."""
    operation = load_service_model().operations["CompleteRollout"]
    members = [
        replace(member, name=member.keyword, header=None) for member in operation.members if member.keyword in keywords
    ]
    if "trajectory_id" in keywords:
        members.append(replace(members[-1], name="group", keyword="group", required=False))
    return replace(operation, members=tuple(members))
