"""The rollout that every client here does: two sums, a calculator, an answer; and what the emulator stored of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.completion import read_completion
from emulator.inference.model_server import ModelRequest
from emulator.inference.scripted import ScriptedServer
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trajectory import TurnStatus
from tests.clients.question import ANSWER, CALCULATOR, QUESTION, SUMS, TURNS, calculator
from tests.stored import stored

REGION = "us-west-2"
KEY_ID, SECRET = "AKIDLOCAL", "a-secret/with+signs="
KEY_PAIR = f"{KEY_ID}:{SECRET}"


class Conversation:
    """A rollout's messages, for clients that write the OpenAI documents themselves."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = [{"role": "user", "content": QUESTION}]
        self.answer: str | None = None

    def request(self, **options: object) -> bytes:
        """The next request, spelt in a way that no encoder would: bytes must survive."""
        document = {"model": "default", "messages": self.messages, "tools": [CALCULATOR], **options}
        return b" " + json.dumps(document, indent=1).encode() + b"\n"

    def take(self, message: Mapping[str, Any]) -> bool:
        """Take the model's message, and call the tools that it names; whether there is a next turn."""
        self.messages.append(message)
        calls = message.get("tool_calls") or ()
        for call in calls:
            result = calculator(**json.loads(call["function"]["arguments"]))
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        if not calls:
            self.answer = message["content"]
        return bool(calls)


def message_of(request: bytes, response: bytes, content_type: str) -> Mapping[str, Any]:
    """The model's message in an answer, streamed or whole."""
    message = read_completion(request, response, content_type).choices[0].message
    assert message is not None
    return message


def scripted_answer(request: bytes) -> bytes:
    """What the scripted model says to a request, asked directly: equal requests get equal bytes."""

    async def ask() -> bytes:
        answer = await ScriptedServer().send(ModelRequest("/v1/chat/completions", request))
        return b"".join([piece async for piece in answer])

    return asyncio.run(ask())


@dataclass(frozen=True)
class StoredRollout:
    """A trajectory and its turns as they are on disk."""

    trajectory: TrajectoryRecord
    turns: list[TurnRecord]

    @property
    def state(self) -> tuple[str, str | None, list[float] | None, bool]:
        """Status, how it was sealed, rewards, and whether a trainer may use it."""
        record = self.trajectory
        return record.status, record.completion, record.rewards, record.eligible

    @property
    def exchanges(self) -> list[tuple[bytes, bytes]]:
        """The bytes of each turn's request and response."""
        return [(turn.request, turn.response) for turn in self.turns]

    def assert_whole_rollout(self) -> None:
        """Two turns that call the calculator and one that answers, each with what came before it."""
        assert [(turn.number, turn.status) for turn in self.turns] == [(n, TurnStatus.COMPLETED) for n in range(TURNS)]
        assert {(turn.path, turn.http_status) for turn in self.turns} == {("/v1/chat/completions", 200)}
        said = [message_of(turn.request, turn.response, turn.content_type or "") for turn in self.turns]
        calls = [call["function"] for message in said for call in message.get("tool_calls") or ()]
        assert [json.loads(call["arguments"])["expression"] for call in calls] == SUMS
        assert said[-1]["content"] == ANSWER
        for turn, roles in zip(self.turns, ([], ["assistant", "tool"], ["assistant", "tool"] * 2), strict=True):
            sent = json.loads(turn.request)["messages"]
            assert [message["role"] for message in sent if message["role"] != "system"] == ["user", *roles]


def stored_rollout(database: Path, trajectory_id: str) -> StoredRollout:
    """What the emulator keeps of a trajectory, read from the file beside the running server."""
    return StoredRollout(*stored(database, trajectory_id))
