"""Rollouts as MLflow's traces: a span of the trajectory, below it one a turn and one a tool call. As OTLP's JSON.

Trace and span ids are made of the job's ARN and the trajectory's id: what is told twice is one trace.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from emulator.completion import Completion
from emulator.documents import read_turn, to_json
from emulator.store import queries
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trainer.rollouts import RolloutResult
from emulator.trajectory import TurnStatus

#: Levels of a value that are told as such; what is deeper becomes text. protobuf reads 100, and one of ours is three.
_DEPTH = 24

#: Characters of the body of a request, and of a trace: MLflow reads 10 MB a second, and has 10 s.
MAX_BODY = 4 * 1024 * 1024

#: Characters of a text in a trace: a prompt comes again with each turn.
MAX_TEXT = 100_000

LEFT_OUT = "left out here for its length; the trajectory has it"

_LONG = ("mlflow.spanInputs", "mlflow.spanOutputs")

_OK, _ERROR = 1, 2  # OTLP's status codes


def spans_of(connection: Connection, job_arn: str, part: str, results: Sequence[RolloutResult]) -> list[bytes]:
    """The traces of rollouts, the attempts that count, as the bodies of requests, each about `MAX_BODY` at most."""
    bodies: list[list[str]] = [[]]
    size = 0
    for result in results:
        for record in queries.find_trajectories(connection, result.trajectory_id, job_arn):
            trace = _within_limit(_trace(record, queries.turns_of(connection, record), part, result))
            length = sum(map(len, trace))
            if bodies[-1] and size + length > MAX_BODY:
                bodies.append([])
                size = 0
            bodies[-1] += trace
            size += length
    return [_body(spans) for spans in bodies if spans]


def _body(spans: Sequence[str]) -> bytes:
    begin = '{"resourceSpans": [{"scopeSpans": [{"scope": {"name": "job-runtime-local"}, "spans": ['
    return f"{begin}{', '.join(spans)}]}}]}}]}}".encode()


def _within_limit(spans: Iterable[dict[str, Any]]) -> list[str]:
    """Spans as JSON; from where a trace gets too long, without what went in and came out, and they say so."""
    written, size = [], 0
    for span in spans:
        text = json.dumps(span)
        if size + len(text) > MAX_BODY:
            attributes = [each for each in span["attributes"] if each["key"] not in _LONG]
            note = {"key": "mlflow.spanInputs", "value": _value(f"… ({LEFT_OUT})")}
            text = json.dumps(span | {"attributes": [*attributes, note]})
        written.append(text)
        size += len(text)
    return written


def _trace(
    record: TrajectoryRecord, turns: Sequence[TurnRecord], part: str, result: RolloutResult
) -> Iterator[dict[str, Any]]:
    ids = _Ids(record)
    read = [read_turn(turn) for turn in turns]
    ended_at = max([record.created_at, record.rewarded_at or record.completed_at or 0, *(t.ended_at for t in turns)])
    attributes: dict[str, Any] = {
        "mlflow.spanType": "AGENT",
        "mlflow.spanInputs": {"prompt": _prompt(record)},
        "mlflow.spanOutputs": _last_answer(turns, read),
        "mlflow.traceTag.trajectory_id": record.trajectory_id,
        "mlflow.traceTag.job_arn": record.job_arn,
        "mlflow.traceTag.part": part,
    }
    if record.group is not None:
        attributes["mlflow.traceTag.group"] = record.group
    if result.reward is not None:
        attributes["reward"] = float(result.reward)
    failure = None if result.failure is None else f"{result.failure.text}: {result.failure.reason}"
    yield ids.span("trajectory", None, record.created_at, ended_at, attributes, failure)
    # ASSUMED: turns count from 0, as everywhere here, and tools are beside them, not below.
    for place, (turn, completion) in enumerate(zip(turns, read, strict=True)):
        yield ids.span(f"turn-{turn.number}", "trajectory", turn.arrived_at, turn.ended_at, *_turn(turn, completion))
        until = turns[place + 1].arrived_at if place + 1 < len(turns) else turn.ended_at
        answers = _tool_answers(read[place + 1 :])
        for number, call in enumerate(_tool_calls(completion)):
            function = call["function"]
            called = {
                "mlflow.spanType": "TOOL",
                "mlflow.spanInputs": _arguments(function.get("arguments")),
                "mlflow.spanOutputs": answers.get(str(call.get("id"))),
            }
            key = f"turn-{turn.number} tool-{number}"
            # From the answer that asked for it to the next question: when it really ran, nobody tells.
            yield ids.span(function["name"], "trajectory", turn.ended_at, max(until, turn.ended_at), called, key=key)


class _Ids:
    """The ids of a trajectory's trace."""

    def __init__(self, record: TrajectoryRecord) -> None:
        self._of = f"{record.job_arn} {record.trajectory_id} {record.created_at}"
        self._trace = self._id("", 16)

    def span(
        self,
        name: str,
        parent: str | None,
        start: int,
        end: int,
        attributes: Mapping[str, Any],
        failure: str | None = None,
        *,
        key: str | None = None,
    ) -> dict[str, Any]:
        """A span; `key` tells it from others of its name."""
        span = {
            "traceId": self._trace,
            "spanId": self._id(key or name, 8),
            "name": _text(name),
            "kind": 1,
            "startTimeUnixNano": str(start * 1000),
            "endTimeUnixNano": str(end * 1000),
            "status": {"code": _ERROR, "message": _text(failure)} if failure else {"code": _OK},
            "attributes": [{"key": name, "value": _value(value)} for name, value in attributes.items()],
        }
        return span | ({} if parent is None else {"parentSpanId": self._id(parent, 8)})

    def _id(self, key: str, size: int) -> str:
        return hashlib.blake2b(f"{self._of} {key}".encode(), digest_size=size).hexdigest()


def _turn(turn: TurnRecord, read: Completion) -> tuple[dict[str, Any], str | None]:
    """The attributes of a turn's span, and why it failed."""
    attributes: dict[str, Any] = {"mlflow.spanType": "CHAT_MODEL", "mlflow.message.format": "openai"}
    attributes |= {"mlflow.spanInputs": read.request, "status": turn.status.value}
    choices = [
        {"index": choice.index, "finish_reason": choice.finish_reason}
        | ({"text": choice.text} if choice.message is None else {"message": choice.message})
        for choice in read.choices
    ]
    if choices:
        attributes["mlflow.spanOutputs"] = {"choices": choices}
    if read.model is not None:
        attributes["mlflow.llm.model"] = read.model
    if (usage := read.usage) is not None:
        prompt, response = usage.prompt_tokens or 0, usage.completion_tokens or 0
        counts = {"input_tokens": prompt, "output_tokens": response, "total_tokens": prompt + response}
        attributes["mlflow.chat.tokenUsage"] = counts
    failed = turn.status is not TurnStatus.COMPLETED
    return attributes, (turn.error or read.error or turn.status.value) if failed else None


def _prompt(record: TrajectoryRecord) -> Any:
    """As the trainer sent it: the column `prompt` of the data set's row, else the first."""
    row = None if record.instance is None else json.loads(record.instance)
    return row.get("prompt", next(iter(row.values()), None)) if isinstance(row, dict) else row


def _last_answer(turns: Sequence[TurnRecord], read: Sequence[Completion]) -> Any:
    for turn, completion in zip(reversed(turns), reversed(read), strict=True):
        if turn.status is TurnStatus.COMPLETED and completion.choices:
            choice = completion.choices[0]
            return (choice.message or {}).get("content") or choice.text
    return None


def _tool_calls(read: Completion) -> list[dict[str, Any]]:
    message = (read.choices[0].message if read.choices else None) or {}
    calls = message.get("tool_calls")
    return [
        call
        for call in (calls if isinstance(calls, list) else [])
        if isinstance(call, dict) and isinstance(of := call.get("function"), dict) and isinstance(of.get("name"), str)
    ]


def _tool_answers(later: Sequence[Completion]) -> dict[str, Any]:
    """What tools answered, by the ids of their calls, as the next question tells."""
    messages = (later[0].messages if later else None) or []
    return {str(each.get("tool_call_id")): each.get("content") for each in messages if each.get("role") == "tool"}


def _arguments(given: Any) -> Any:
    try:
        return json.loads(given)
    except (ValueError, TypeError, RecursionError):
        return given


def _value(value: Any, depth: int = _DEPTH) -> dict[str, Any]:  # noqa: PLR0911  # one a type
    """Any JSON as OTLP's AnyValue."""
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case int() if -(2**63) <= value < 2**63:
            return {"intValue": str(value)}
        case float() if math.isfinite(value):
            return {"doubleValue": value}
        case str():
            return {"stringValue": _text(value)}
        case list() if depth:
            return {"arrayValue": {"values": [_value(item, depth - 1) for item in value]}}
        case dict() if depth:
            pairs = ((_text(str(key)), each) for key, each in value.items())
            return {"kvlistValue": {"values": [{"key": key, "value": _value(item, depth - 1)} for key, item in pairs]}}
    return {"stringValue": _text(to_json(value))}


def _text(text: str) -> str:
    """As protobuf takes it, and not longer than a trace may have it."""
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT} characters are {LEFT_OUT})"
    return text.encode("utf-8", "replace").decode()
