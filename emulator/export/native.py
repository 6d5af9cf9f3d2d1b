"""Format `native`: everything, a row a trajectory, with the exact bytes of each turn."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from emulator.documents import trajectory_document
from emulator.export.rollouts import Rollout
from emulator.export.shape import Field, Many, Shape

SCHEMA = "native/1"

_BYTES = {
    "encoding": Field("text", "How `data` holds them: `utf-8`, as they are, or `base64`."),
    "data": Field("text", "The bytes."),
}

_TURN: Shape = {
    "number": Field("integer", "The order in which requests arrived, from 0."),
    "status": Field("text", "completed, failed, aborted or discarded: only completed turns count."),
    "path": Field("text", "What was asked of the model server."),
    "http_status": Field("integer", "What it answered with; null if it gave no answer.", nullable=True),
    "content_type": Field("text", "The answer's.", nullable=True),
    "error": Field("text", "What went wrong.", nullable=True),
    "problem": Field("text", "What of the bytes could not be read.", nullable=True),
    "arrived_at": Field("time", "When the request was there."),
    "first_byte_at": Field("time", "When the answer began.", nullable=True),
    "ended_at": Field("time", "When it was over."),
    "streamed": Field("boolean", "Whether the answer is server-sent events."),
    "model": Field("text", "The model's name.", nullable=True),
    "request": Field("json", "The request, decoded; null if it is no JSON object.", nullable=True),
    "choices": Field(Many("json"), "The answer's choices, decoded, put together if they were streamed."),
    "usage": Field("json", "The tokens that the model counted.", nullable=True),
    "request_bytes": Field(_BYTES, "The request, byte for byte."),
    "response_bytes": Field(_BYTES, "The answer's body, byte for byte."),
}

SHAPE: Shape = {
    "schema": Field("text", "Name and version of this schema."),
    "job_arn": Field("text", "The job."),
    "trajectory_id": Field("text", "The trajectory."),
    "group": Field("text", "What rollouts of one prompt share; null if nobody said.", nullable=True),
    "instance": Field("json", "The dataset's row that the rollout was dispatched with, or null.", nullable=True),
    "status": Field("text", "open, ready, failed or reward-received."),
    "completion": Field("text", "How it was sealed: ready or failed; null while it is open.", nullable=True),
    "eligible": Field("boolean", "Whether a trainer may use it: completed as ready, and its reward received."),
    "rewards": Field(Many("number"), "The rewards as they came: one, or one for each completed turn.", nullable=True),
    "created_at": Field("time", "When it began."),
    "completed_at": Field("time", "When it was sealed.", nullable=True),
    "rewarded_at": Field("time", "When its rewards came.", nullable=True),
    "usage": Field("json", "The tokens of its completed turns, as far as the model counted them."),
    "turns": Field(Many(_TURN), "All its turns, whatever their status."),
}


def rows(rollout: Rollout) -> Iterator[dict[str, Any]]:
    """The one row of a trajectory."""
    turns = rollout.turns()
    document = {"schema": SCHEMA} | trajectory_document(rollout.record, turns)
    for each, turn in zip(document["turns"], turns, strict=True):
        each["request_bytes"], each["response_bytes"] = _bytes(turn.request), _bytes(turn.response)
    yield {name: document[name] for name in SHAPE}


def _bytes(body: bytes) -> dict[str, str]:
    try:
        return {"encoding": "utf-8", "data": body.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", "data": base64.b64encode(body).decode()}
