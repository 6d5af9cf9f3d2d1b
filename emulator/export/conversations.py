"""Which turns of a trajectory go on from one another, by their messages. Pure.

A turn extends another if its messages begin with that one's messages and answer, and its tools are the same. Agents
change what does not matter when they send a message back (a null left out, a text as a list of one part, arguments with
other spaces): that is no difference. Reasoning that an agent leaves out is none either, as most templates drop it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emulator.completion import Choice, Completion
from emulator.store.queries import TurnRecord

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spoken:
    """A completed turn, and what its bytes say."""

    turn: TurnRecord
    read: Completion

    @property
    def tools(self) -> list[Any] | None:
        """The tools that were offered; None for an empty list as well."""
        tools = (self.read.request or {}).get("tools")
        return tools if isinstance(tools, list) and tools else None


@dataclass(slots=True)
class Conversation:
    """Turns of which each extends the one before."""

    begins: str | None  #: why it does not go on from what was there before; of the first, nothing
    turns: list[Spoken] = field(default_factory=list)
    #: What the model said, turn by turn: the choice that the next turn went on with; of the last, the first.
    answers: list[Choice] = field(default_factory=list)

    @property
    def prompt(self) -> list[Message]:
        """The messages before the model's first answer."""
        return self.turns[0].read.messages or []

    @property
    def messages(self) -> list[tuple[Message, bool]]:
        """All messages up to the last answer, the model's own as it wrote them, and whether each is its own."""
        told: list[tuple[Message, bool]] = []
        for spoken, answer in zip(self.turns, self.answers, strict=True):
            told += [(message, False) for message in (spoken.read.messages or [])[len(told) :]]
            told.append((answer.message or {}, True))
        return told


def conversations(turns: Sequence[Spoken]) -> tuple[list[Conversation], dict[str, str]]:
    """The conversations of a trajectory's completed turns, and what of them could not be had."""
    found: list[Conversation] = []
    ends: list[list[list[str]]] = []  # of each conversation, choice by choice: its messages so far
    missing: dict[str, str] = {}
    for spoken in turns:
        problem = _problem(spoken)
        if problem:
            missing[f"turn {spoken.turn.number}"] = problem
            continue
        told = [_canonical(message) for message in spoken.read.messages or []]
        at, choice = _extended(spoken, told, found, ends)
        if at is None:
            before = max(range(len(found)), key=lambda each: found[each].turns[-1].turn.number, default=None)
            begins = None if before is None else _difference(spoken, told, found[before], ends[before])
            found.append(Conversation(begins))
            ends.append([])
            at = len(found) - 1
        else:
            found[at].answers[-1] = found[at].turns[-1].read.choices[choice]
        choices = [each for each in spoken.read.choices if each.message]
        found[at].turns.append(spoken)
        found[at].answers.append(choices[0])
        ends[at] = [[*told, _canonical(each.message or {})] for each in spoken.read.choices]
    for conversation in found:
        last = conversation.turns[-1]
        if len(last.read.choices) > 1:
            reason = f"no turn goes on from one of its {len(last.read.choices)} choices, so the first is taken"
            missing[f"choice of turn {last.turn.number}"] = reason
    return found, missing


def _problem(spoken: Spoken) -> str | None:
    """Why a turn is no part of a conversation."""
    if not spoken.read.messages:
        return "it has no chat messages" if spoken.read.prompt is not None else "its request could not be read"
    if not any(choice.message for choice in spoken.read.choices):
        return f"its answer could not be read: {spoken.read.problem or spoken.read.error or 'it has no message'}"
    return None


def _extended(
    spoken: Spoken, told: list[str], found: Sequence[Conversation], ends: Sequence[list[list[str]]]
) -> tuple[int | None, int]:
    """The conversation that a turn extends, the longest, and by which of its last answer's choices."""
    best: tuple[int, int] | None = None
    length = 0
    for at, (conversation, choices) in enumerate(zip(found, ends, strict=True)):
        if conversation.turns[-1].tools != spoken.tools:
            continue
        for number, end in enumerate(choices):
            if length < len(end) < len(told) and told[: len(end)] == end:
                best, length = (at, number), len(end)
    return best or (None, 0)


def _difference(spoken: Spoken, told: list[str], before: Conversation, ends: list[list[str]]) -> str:
    number, last = spoken.turn.number, before.turns[-1].turn.number
    if before.turns[-1].tools != spoken.tools:
        return f"turn {number} has other tools than turn {last}"
    end = ends[0]
    same = next((at for at, (one, other) in enumerate(zip(end, told, strict=False)) if one != other), None)
    if same is None:
        return f"turn {number} has no message after those of turn {last}"
    return f"turn {number} differs from turn {last} and its answer in message {same}"


def _canonical(message: Mapping[str, Any]) -> str:
    """A message without what does not matter; equal ones have equal texts."""
    calls = message.get("tool_calls")
    kept = {
        "role": message.get("role"),
        "content": plain_text(message.get("content")),
        "calls": [_canonical_call(call) for call in calls] if isinstance(calls, list) else [],
        "call": message.get("tool_call_id"),
        "name": message.get("name"),
    }
    return json.dumps(kept, sort_keys=True)


def _canonical_call(call: object) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        return call
    return [call.get("id"), function.get("name"), decoded_arguments(function.get("arguments"))]


def decoded_arguments(arguments: object) -> object:
    """A call's arguments as an object, if their text says one."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def plain_text(content: object) -> object:
    """A content's text, if it has nothing else; the parts of a list are put together, as templates do."""
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    return content
