"""Formats of TRL's data sets: `trl-sft`, `trl-grpo` and `trl-dpo`, all conversational.

As TRL's chat templates want it, a content is a text (empty beside tool calls), a call's arguments are an object, and
what is null is left out. `tools` is JSON text, which TRL reads, so that no loader mixes up their parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emulator.documents import to_json
from emulator.export.conversations import Conversation, Message, conversations, decoded_arguments, plain_text
from emulator.export.rollouts import Rollout
from emulator.export.shape import Field, Many, Shape

SFT, GRPO, DPO = "trl-sft/1", "trl-grpo/1", "trl-dpo/1"

_PROMPT = Field(Many("json"), "The messages before what the model said.")
_TOOLS = Field("text", "The tools that were offered, as JSON; null if there were none.", nullable=True)
_GROUP = Field("text", "What rollouts of one prompt share; null if nobody said.", nullable=True)
_JOB = Field("text", "The job.")
_SCHEMA = Field("text", "Name and version of this schema.")

SFT_SHAPE: Shape = {
    "prompt": _PROMPT,
    "completion": Field(Many("json"), "The one message that the model answered with."),
    "tools": _TOOLS,
    "reward": Field("number", "The trajectory's: the sum of its rewards; null if none came.", nullable=True),
    "schema": _SCHEMA,
    "job_arn": _JOB,
    "trajectory_id": Field("text", "The trajectory."),
    "group": _GROUP,
    "turn": Field("integer", "The turn's number."),
}

GRPO_SHAPE: Shape = {
    "prompt": _PROMPT,
    "tools": _TOOLS,
    "instance": Field(
        "text",
        "The dataset's row that the rollouts were dispatched with, as JSON: for reward functions.",
        nullable=True,
    ),
    "rewards": Field(Many("number"), "What the captured rollouts of this prompt got, as far as they got something."),
    "schema": _SCHEMA,
    "job_arn": _JOB,
    "group": _GROUP,
}

DPO_SHAPE: Shape = {
    "prompt": _PROMPT,
    "chosen": Field(Many("json"), "All that followed in the rollout with the highest reward."),
    "rejected": Field(Many("json"), "All that followed in the rollout with the lowest."),
    "tools": _TOOLS,
    "chosen_reward": Field("number", "The highest reward."),
    "rejected_reward": Field("number", "The lowest."),
    "chosen_trajectory_id": Field("text", "The trajectory with the highest reward."),
    "rejected_trajectory_id": Field("text", "The trajectory with the lowest."),
    "schema": _SCHEMA,
    "job_arn": _JOB,
    "group": _GROUP,
}


def sft_rows(rollout: Rollout) -> Iterator[dict[str, Any]]:
    """A row a turn: TRL takes its loss on completions, and so on the model's own words, whatever the chat template."""
    record, count = rollout.record, 0
    for conversation in conversations(rollout.completed())[0]:
        for spoken, answer in zip(conversation.turns, conversation.answers, strict=True):
            prompt, completion = _messages(spoken.read.messages or []), _messages([answer.message or {}])
            if prompt is None or completion is None:
                continue
            count += 1
            yield {
                "prompt": prompt,
                "completion": completion,
                "tools": _tools(conversation),
                "reward": rollout.reward,
                "schema": SFT,
                "job_arn": record.job_arn,
                "trajectory_id": record.trajectory_id,
                "group": record.group,
                "turn": spoken.turn.number,
            }
    if not count:
        rollout.tally.left_out["no completed turn of a chat in text"] += 1


def grpo_rows(rollout: Rollout) -> Iterator[dict[str, Any]]:
    """A row a group, with the prompt that its rollouts began with; a row a trajectory where it has no group."""
    record = rollout.record
    if rollout.companions and rollout.companions[0].id != record.id:
        return  # the group's row came with its first trajectory
    members = rollout.companions or [record]
    for member in members:  # the first whose prompt can be had speaks for all
        found = conversations(rollout.companion(member).completed())[0]
        prompt = _messages(found[0].prompt) if found else None
        if prompt is not None:
            yield {
                "prompt": prompt,
                "tools": _tools(found[0]),
                "instance": record.instance,
                "rewards": [reward for each in members if (reward := rollout.companion(each).reward) is not None],
                "schema": GRPO,
                "job_arn": record.job_arn,
                "group": record.group,
            }
            return
    rollout.tally.left_out["no completed turn of a chat in text"] += 1


def dpo_rows(rollout: Rollout) -> Iterator[dict[str, Any]]:
    """A row a group: its best rollout and its worst, of those that are one conversation from the same prompt."""
    record, left_out = rollout.record, rollout.tally.left_out
    if not rollout.companions:
        left_out["no group"] += 1
        return
    if rollout.companions[0].id != record.id:
        return  # the group's row came with its first trajectory
    rewarded = [rollout.companion(each) for each in rollout.companions if each.rewards is not None]
    ranked = sorted(rewarded, key=lambda each: -(each.reward or 0.0))  # stable: of equal ones the oldest first
    best = next((pair for each in ranked if (pair := _one_conversation(each))), None)
    if best is None or best[0].reward is None:
        left_out["a group without a rewarded rollout that is one conversation"] += 1
        return
    prompt, chosen = best[1]
    reason = "a group whose rewards are all alike"
    for each in reversed(ranked):
        if each.reward is None or each.reward >= best[0].reward:
            break
        other = _one_conversation(each)
        if other is None or other[1][0] != prompt or other[2] != best[2]:
            reason = "a group without two rollouts that are one conversation from the same prompt, with other rewards"
            continue
        yield {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": other[1][1],
            "tools": best[2],
            "chosen_reward": best[0].reward,
            "rejected_reward": each.reward,
            "chosen_trajectory_id": best[0].record.trajectory_id,
            "rejected_trajectory_id": each.record.trajectory_id,
            "schema": DPO,
            "job_arn": record.job_arn,
            "group": record.group,
        }
        return
    left_out[reason] += 1


def _one_conversation(rollout: Rollout) -> tuple[Rollout, tuple[list[Message], list[Message]], str | None] | None:
    """A rollout that is one conversation: its prompt, what followed, its tools."""
    completed = rollout.completed()
    found, _ = conversations(completed)
    if len(found) != 1 or len(found[0].turns) != len(completed):
        return None
    prompt = _messages(found[0].prompt)
    followed = _messages([message for message, _ in found[0].messages[len(found[0].prompt) :]])
    return None if prompt is None or followed is None else (rollout, (prompt, followed), _tools(found[0]))


def _tools(conversation: Conversation) -> str | None:
    tools = conversation.turns[0].tools
    return None if tools is None else to_json(tools)


def _messages(messages: Sequence[Message]) -> list[Message] | None:
    """Messages as TRL takes them; None if there is something in them that is no text."""
    found = [_message(message) for message in messages]
    return None if any(not isinstance(message["content"], str) for message in found) else found


def _message(message: Message) -> Message:
    kept: Message = {"role": message.get("role") or "assistant", "content": plain_text(message.get("content"))}
    if isinstance(calls := message.get("tool_calls"), list) and calls:
        kept["tool_calls"] = [_call(call) for call in calls]
    return kept | {name: message[name] for name in ("tool_call_id", "name") if message.get(name) is not None}


def _call(call: Any) -> Any:
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    function = call["function"]
    return {**call, "function": {**function, "arguments": decoded_arguments(function.get("arguments"))}}
