"""Which turns go on from one another by their messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.completion import read_completion
from emulator.export.conversations import Spoken, conversations
from emulator.store.queries import TurnRecord
from emulator.trajectory import TurnStatus

USER = {"role": "user", "content": "What is 6 * 7?"}
OTHER = {"role": "user", "content": "What is 6 * 8?"}
CALL = {"id": "c-1", "type": "function", "function": {"name": "calculator", "arguments": '{"expression": "6 * 7"}'}}
CALLS = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL], "reasoning": "I had better ask."}
TOOL = {"role": "tool", "tool_call_id": "c-1", "content": "42"}
ANSWER = {"role": "assistant", "content": "The answer is 42."}

Messages = list[dict[str, Any]]


def spoken(number: int, messages: Messages, *answers: dict[str, Any], **options: object) -> Spoken:
    """A completed turn."""
    request = json.dumps({"model": "m", "messages": messages, **options}).encode()
    choices = [{"index": at, "message": answer, "finish_reason": "stop"} for at, answer in enumerate(answers)]
    response = json.dumps({"choices": choices}).encode()
    turn = TurnRecord(
        number=number, status=TurnStatus.COMPLETED, path="/v1/chat/completions", http_status=200,
        content_type="application/json", error=None, arrived_at=1, first_byte_at=2, ended_at=3,
        request=request, response=response,
    )  # fmt: skip
    return Spoken(turn, read_completion(request, response, "application/json"))


@pytest.mark.parametrize(
    "copy",
    [
        CALLS,
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "content": [], "tool_calls": [CALL]},
        {
            "role": "assistant",
            "tool_calls": [{**CALL, "function": {"name": "calculator", "arguments": '{"expression":"6 * 7"}'}}],
        },
    ],
)
def test_what_an_agent_changes_without_meaning_to_is_no_difference(copy: dict[str, Any]) -> None:
    (one,), missing = conversations([spoken(0, [USER], CALLS), spoken(1, [USER, copy, TOOL], ANSWER)])
    assert [each.turn.number for each in one.turns] == [0, 1]
    assert one.messages == [(USER, False), (CALLS, True), (TOOL, False), (ANSWER, True)]
    assert missing == {}


def test_a_text_in_parts_is_the_text() -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "6 * 7?"}]}
    (one,), _ = conversations([spoken(0, [USER], ANSWER), spoken(1, [parts, ANSWER, USER], ANSWER)])
    assert len(one.turns) == 2


@pytest.mark.parametrize(
    ("second", "begins"),
    [
        ([OTHER, ANSWER, USER], "turn 1 differs from turn 0 and its answer in message 0"),
        ([USER, {**ANSWER, "content": "43"}, USER], "turn 1 differs from turn 0 and its answer in message 1"),
        ([USER], "turn 1 has no message after those of turn 0"),
        ([USER, ANSWER], "turn 1 has no message after those of turn 0"),
    ],
)  # fmt: skip
def test_what_does_not_go_on_begins_a_conversation_and_says_why(second: Messages, begins: str) -> None:
    (first, other), _ = conversations([spoken(0, [USER], ANSWER), spoken(1, second, ANSWER)])
    assert (first.begins, other.begins) == (None, begins)


def test_other_tools_begin_a_conversation() -> None:
    tools = [{"type": "function", "function": {"name": "calculator"}}]
    _, other = conversations([spoken(0, [USER], ANSWER), spoken(1, [USER, ANSWER, USER], ANSWER, tools=tools)])[0]
    assert other.begins == "turn 1 has other tools than turn 0"


def test_the_choice_counts_that_the_agent_went_on_with() -> None:
    other = {"role": "assistant", "content": "It is 42."}
    turns = [spoken(0, [USER], ANSWER, other), spoken(1, [USER, other, USER], ANSWER, other)]
    (one,), missing = conversations(turns)
    assert [message for message, own in one.messages if own] == [other, ANSWER]
    assert missing == {"choice of turn 1": "no turn goes on from one of its 2 choices, so the first is taken"}


def test_a_turn_that_cannot_be_read_is_missing_and_the_rest_goes_on() -> None:
    turns = [spoken(0, [USER], ANSWER), spoken(1, [USER, ANSWER, USER]), spoken(2, [USER, ANSWER, USER], ANSWER)]
    (one,), missing = conversations(turns)
    assert [each.turn.number for each in one.turns] == [0, 2]
    assert missing == {"turn 1": "its answer could not be read: answer: no choices"}


texts = st.text(st.characters(codec="utf-8"), max_size=5)
turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=5)


@given(st.lists(turns, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_conversations_that_alternate_are_told_apart(told: list[list[tuple[str, str]]], random: Any) -> None:
    """However their turns are mixed, each is found, whole."""
    so_far: list[Messages] = [[{"role": "system", "content": f"conversation {at}"}] for at in range(len(told))]
    order = [at for at, pairs in enumerate(told) for _ in pairs]
    random.shuffle(order)
    taken: list[Spoken] = []
    for at in order:
        asked, answered = told[at][sum(1 for m in so_far[at] if m["role"] == "user")]
        so_far[at] = [*so_far[at], {"role": "user", "content": asked}]
        taken.append(spoken(len(taken), so_far[at], {"role": "assistant", "content": answered}))
        so_far[at] = [*so_far[at], {"role": "assistant", "content": answered}]
    found, missing = conversations(taken)
    assert missing == {}
    assert sorted(json.dumps([message for message, _ in each.messages]) for each in found) == sorted(
        map(json.dumps, so_far)
    )
    assert all(own == (message["role"] == "assistant") for each in found for message, own in each.messages)
