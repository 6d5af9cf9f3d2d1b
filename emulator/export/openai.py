"""Format `openai`: messages, tools and reward, the shape of fine-tuning; a row a conversation.

A trajectory whose turns extend one another is one conversation, and one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulator.export.columns import MISSING, TRAJECTORY, trajectory_columns
from emulator.export.conversations import Conversation, Message, conversations
from emulator.export.rollouts import Rollout
from emulator.export.shape import Field, Many, Shape

SCHEMA = "openai/1"

SHAPE: Shape = {
    "messages": Field(
        Many("json"),
        "The conversation. An assistant's message has weight 1 if the model said it in this conversation, and 0 if it "
        "came with the prompt. Null if there is none.",
        nullable=True,
    ),
    "tools": Field(Many("json"), "The tools that were offered; null if there were none.", nullable=True),
    **TRAJECTORY,
    "conversation": Field("integer", "Which of the trajectory's conversations this is, from 0."),
    "conversations": Field("integer", "How many there are. More than one: not all of its turns extend one another."),
    "begins": Field("text", "Why it does not go on from the turn before; null for the first.", nullable=True),
    "turns": Field(Many("integer"), "The numbers of its turns, in the order of the messages with weight 1."),
    "missing": MISSING,
}

#: What a message of the model may have in this shape.
_KEPT = ("role", "content", "refusal", "tool_calls", "audio", "name")


def rows(rollout: Rollout) -> Iterator[dict[str, Any]]:
    """The rows of a trajectory; one without messages, that says why, if it has no conversation."""
    completed = rollout.completed()
    if not completed:
        rollout.tally.left_out["no completed turn"] += 1
        return
    found, missing = conversations(completed)
    head = trajectory_columns(SCHEMA, rollout)
    if rollout.record.rewards is None:
        missing["reward"] = "none came"
    if not found:
        empty: dict[str, Any] = {
            "messages": None,
            "tools": None,
            "conversation": 0,
            "conversations": 0,
            "begins": None,
            "turns": [],
        }
        yield _in_order(head | empty | {"missing": missing})
    for number, conversation in enumerate(found):
        dropped = _dropped(conversation)
        yield _in_order(
            head
            | {
                "messages": [_weighted(message, own=own) for message, own in conversation.messages],
                "tools": conversation.turns[0].tools,
                "conversation": number,
                "conversations": len(found),
                "begins": conversation.begins,
                "turns": [spoken.turn.number for spoken in conversation.turns],
                "missing": missing | dropped,
            }
        )


def _in_order(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in SHAPE}


def _weighted(message: Message, *, own: bool) -> Message:
    if own:
        message = {key: message[key] for key in _KEPT if message.get(key) is not None or key == "content"}
        message.setdefault("role", "assistant")
        message.setdefault("content", None)
    return {**message, "weight": int(own)} if message.get("role") == "assistant" else message


def _dropped(conversation: Conversation) -> dict[str, str]:
    """What the model said beside what this shape has a place for."""
    names = {
        name
        for message, own in conversation.messages
        if own
        for name, value in message.items()
        if name not in _KEPT and value not in (None, [], "", {})
    }
    return dict.fromkeys(sorted(names), "this shape has no place for it; the format native has it")
