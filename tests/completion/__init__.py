"""Exchanges to read: chunks of a chat, streams of them, and what is read from them."""

from __future__ import annotations

import json
from typing import Any

from emulator.completion import Completion, read_completion

SSE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(index: int = 0, *, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of a chat with one delta."""
    choice = {"index": index, "delta": fields, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def stream(*chunks: Any, end: bytes = DONE) -> bytes:
    return b"".join(event(chunk) for chunk in chunks) + end


def read(response: bytes, content_type: str | None = SSE, request: bytes = b"{}") -> Completion:
    return read_completion(request, response, content_type)


def read_json(value: Any) -> Completion:
    return read(json.dumps(value).encode(), "application/json")


def message_of(*deltas: dict[str, Any]) -> Any:
    """The message that the deltas make, when nothing went wrong."""
    completion = read(stream(*(delta(**fields) for fields in deltas)))
    assert completion.problem is None
    return completion.choices[0].message
