"""Trajectories and turns as JSON documents: what management answers with, and the command line shows and exports."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from emulator.completion import Choice, Completion, Usage, read_completion
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trajectory import TurnStatus

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")

#: Levels of a document that are written when Python's own limit has stopped the first attempt.
_DEPTH = 100


def trajectory_summary(record: TrajectoryRecord) -> dict[str, Any]:
    """A trajectory without its turns, only how many of them are completed. Nothing is decoded."""
    return {
        "job_arn": record.job_arn,
        "trajectory_id": record.trajectory_id,
        "group": record.group,
        "status": record.status.value,
        "completion": None if record.completion is None else record.completion.value,
        "eligible": record.eligible,
        "rewards": record.rewards,
        "created_at": format_time(record.created_at),
        "completed_at": format_time(record.completed_at),
        "rewarded_at": format_time(record.rewarded_at),
        "turns": record.turns,
    }


def trajectory_document(record: TrajectoryRecord, turns: Sequence[TurnRecord]) -> dict[str, Any]:
    """A trajectory with all its turns, decoded, and the tokens that they took.

    Takes processor time in proportion to the bodies: off the event loop, please.
    """
    read = [read_turn(turn) for turn in turns]
    documents = [turn_document(turn, completion) for turn, completion in zip(turns, read, strict=True)]
    document = trajectory_summary(record)
    del document["turns"]  # their place is the end
    document["instance"] = None if record.instance is None else json.loads(record.instance)
    return document | {"usage": total_usage(turns, read), "turns": documents}


def read_turn(turn: TurnRecord) -> Completion:
    """What a turn's bytes say."""
    return read_completion(turn.request, turn.response, turn.content_type)


def turn_document(turn: TurnRecord, read: Completion) -> dict[str, Any]:
    """A turn and what its bytes say; `problem` says what of them could not be read."""
    return {
        "number": turn.number,
        "status": turn.status.value,
        "path": turn.path,
        "http_status": turn.http_status,
        "content_type": turn.content_type,
        "error": turn.error or read.error,
        "problem": None if turn.http_status is None else read.problem,  # no answer: `error` says why
        "arrived_at": format_time(turn.arrived_at),
        "first_byte_at": format_time(turn.first_byte_at),
        "ended_at": format_time(turn.ended_at),
        "streamed": read.streamed,
        "model": read.model,
        "request": read.request,
        "choices": [_choice(choice) for choice in read.choices],
        "usage": _usage(read.usage),
    }


def total_usage(turns: Sequence[TurnRecord], read: Sequence[Completion]) -> dict[str, int]:
    """The tokens of the completed turns, as far as the model counted them."""
    completed = [each for turn, each in zip(turns, read, strict=True) if turn.status is TurnStatus.COMPLETED]
    usages = [each.usage for each in completed if each.usage is not None]
    return {name: sum(getattr(usage, name) or 0 for usage in usages) for name in _COUNTS}


def to_json(document: object) -> str:
    """A document on one line, in ASCII: no line break, no terminal's control character, always valid JSON.

    Of what a model may have sent and JSON cannot say, NaN and infinities become texts, as in AWS's rest-json, and
    what is nested too deeply an ellipsis; the exact bytes are to be had elsewhere.
    """
    try:
        return json.dumps(document, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return json.dumps(_sayable(document, _DEPTH), separators=(",", ":"))


def format_time(microseconds: int | None) -> str | None:
    """RFC 3339 in UTC with microseconds, `2026-11-21T12:00:00.123456Z`."""
    if microseconds is None:
        return None
    return (_EPOCH + microseconds * _MICROSECOND).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> int:
    """Microseconds since 1970 of an RFC 3339 time, or of seconds since 1970. Raises ValueError with the reason."""
    try:
        time = _EPOCH + timedelta(seconds=float(text))
    except OverflowError:
        raise ValueError(f"{text!r} seconds since 1970 are out of range") from None
    except ValueError:
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is neither a time like 2026-11-21T12:00:00Z nor a number of seconds since 1970"
            ) from None
    if time.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone; UTC is written as Z at the end")
    return (time - _EPOCH) // _MICROSECOND


def _choice(choice: Choice) -> dict[str, Any]:
    logprobs = choice.logprobs
    return {
        "index": choice.index,
        "message": choice.message,
        "text": choice.text,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "prompt_token_ids": choice.prompt_token_ids,
        "token_ids": choice.token_ids,
        "logprobs": None if logprobs is None else [entry._asdict() for entry in logprobs],
    }


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    return None if usage is None else {**usage.raw, **{name: getattr(usage, name) for name in _COUNTS}}


def _sayable(value: Any, depth: int) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {key: _sayable(entry, depth - 1) for key, entry in value.items()}
    return [_sayable(entry, depth - 1) for entry in value]
