"""What clients say, and what the model says to that: the one follows from the other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

DONE = b"data: [DONE]\n\n"

_SYSTEM = "You are an agent that solves arithmetic step by step, and calls the calculator where it is of use. " * 6

_TEXT = "What came of it, and what follows from that for the next step? " * 3


class Conversation:
    """The messages of a rollout so far. Each request holds all of them, as those of agents do."""

    def __init__(self, name: str) -> None:
        self._messages = _message("system", _SYSTEM)
        self.add("user", f"{name}: {_TEXT}")

    def add(self, role: str, content: str) -> None:
        """Append a message."""
        self._messages += b", " + _message(role, content)

    def heard(self, request: bytes) -> None:
        """Go on after the answer to `request`."""
        said = digest(request)
        self.add("assistant", said)
        self.add("user", f"{said[:16]}: {_TEXT}")

    def request(self, marker: str, **options: object) -> bytes:
        """The body of a request that is like no other: `marker` ends it, after `options` for the model."""
        rest = json.dumps({**options, "marker": marker})
        return b'{"model": "default", "messages": [%b], %b' % (self._messages, rest[1:].encode())


def _message(role: str, content: str) -> bytes:
    return json.dumps({"role": role, "content": content}).encode()


def digest(body: bytes) -> str:
    """What stands for a request."""
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """The answer to a request, and how it is sent."""

    pieces: list[bytes]  #: one, or the events of a stream
    is_stream: bool
    pace: float  #: seconds from one event to the next
    together: int  #: so many streams go on after their first event when all of them are there

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.pieces)


def model_answer(request: bytes) -> ModelAnswer:
    """What the model says to a request."""
    options = json.loads(request)
    said = digest(request)
    if not options.get("stream"):
        message: dict[str, object] = {"role": "assistant", "content": said, "refusal": None, "tool_calls": []}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        whole = {"id": f"chatcmpl-{said[:24]}", "object": "chat.completion", "choices": [choice]}
        return ModelAnswer([json.dumps(whole).encode()], is_stream=False, pace=0, together=0)
    pieces = [
        b'data: {"id": "chatcmpl-%b", "choices": [{"index": 0, "delta": {"content": "%d"}}]}\n\n'
        % (said[:24].encode(), number)
        for number in range(options.get("events", 4))
    ]
    return ModelAnswer([*pieces, DONE], True, options.get("pace", 0), options.get("together", 0))
