"""Trajectories and turns as JSON documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emulator.documents import (
    format_time,
    parse_time,
    read_turn,
    to_json,
    trajectory_document,
    trajectory_summary,
    turn_document,
)
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trajectory import Status, TurnStatus

NOON = 1795262400_000000  # 2026-11-21T12:00:00Z


def a_trajectory(turns: int = 1) -> TrajectoryRecord:
    return TrajectoryRecord(
        id=7,
        job_arn="arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/arithmetic",
        trajectory_id="t-1",
        status=Status.REWARD_RECEIVED,
        completion=Status.READY,
        rewards=[0.5, 1.0],
        created_at=NOON,
        completed_at=NOON + 1,
        rewarded_at=NOON + 2,
        turns=turns,
    )


def a_turn(
    request: bytes = b'{"model":"m","messages":[]}',
    response: bytes = b'{"choices":[]}',
    *,
    status: TurnStatus = TurnStatus.COMPLETED,
    error: str | None = None,
) -> TurnRecord:
    return TurnRecord(
        number=0,
        status=status,
        path="/v1/chat/completions",
        http_status=200,
        content_type="application/json",
        error=error,
        arrived_at=NOON,
        first_byte_at=None,
        ended_at=NOON + 1_500_000,
        request=request,
        response=response,
    )


def an_answer(**usage: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}
    return json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()


def document_of(turn: TurnRecord) -> dict[str, Any]:
    return turn_document(turn, read_turn(turn))


def test_a_summary_counts_the_turns_and_decodes_none() -> None:
    assert trajectory_summary(a_trajectory(turns=3)) == {
        "job_arn": "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/arithmetic",
        "trajectory_id": "t-1",
        "group": None,
        "status": "reward-received",
        "completion": "ready",
        "eligible": True,
        "rewards": [0.5, 1.0],
        "created_at": "2026-11-21T12:00:00.000000Z",
        "completed_at": "2026-11-21T12:00:00.000001Z",
        "rewarded_at": "2026-11-21T12:00:00.000002Z",
        "turns": 3,
    }


def test_a_turn_shows_what_its_bytes_say() -> None:
    token = {"token": "42", "logprob": -0.5, "top_logprobs": []}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "42"},
        "finish_reason": "stop",
        "token_ids": [4, 2],
        "logprobs": {"content": [token]},
    }
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7, "cached": 1}
    answer = {"model": "big", "prompt_token_ids": [1, 2], "choices": [choice], "usage": usage}
    assert document_of(a_turn(response=json.dumps(answer).encode())) == {
        "number": 0,
        "status": "completed",
        "path": "/v1/chat/completions",
        "http_status": 200,
        "content_type": "application/json",
        "error": None,
        "problem": None,
        "arrived_at": "2026-11-21T12:00:00.000000Z",
        "first_byte_at": None,
        "ended_at": "2026-11-21T12:00:01.500000Z",
        "streamed": False,
        "model": "big",
        "request": {"model": "m", "messages": []},
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "42"},
                "text": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "prompt_token_ids": [1, 2],
                "token_ids": [4, 2],
                "logprobs": [{"token": "42", "logprob": -0.5}],
            }
        ],
        "usage": usage,
    }


def test_bytes_that_cannot_be_read_are_a_problem_and_no_error() -> None:
    document = document_of(a_turn(request=b"\xff", response=b"{"))
    assert document["request"] is None
    assert "request" in document["problem"]
    assert document["choices"] == []


def test_our_own_error_comes_before_the_models() -> None:
    refusal = b'{"error": {"message": "too long"}}'
    assert document_of(a_turn(response=refusal))["error"] == "too long"
    assert document_of(a_turn(response=refusal, error="it broke off"))["error"] == "it broke off"


def test_only_completed_turns_tokens_are_counted() -> None:
    turns = [
        a_turn(response=an_answer(prompt_tokens=5, completion_tokens=2, total_tokens=7)),
        a_turn(response=an_answer(prompt_tokens=9, completion_tokens=1)),
        a_turn(response=an_answer(prompt_tokens=100, completion_tokens=100), status=TurnStatus.DISCARDED),
        a_turn(),
    ]
    document = trajectory_document(a_trajectory(turns=3), turns)
    assert document["usage"] == {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 7}
    assert len(document["turns"]) == 4


def test_json_is_one_line_that_commands_no_terminal() -> None:
    line = to_json({"content": "a\nb\u2028c\x1b[31m\u009b\u202ed\ud800日本"})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["content"].endswith("日本")


def test_numbers_that_json_cannot_say_become_texts() -> None:
    body = b'{"messages": [], "temperature": NaN, "bias": [Infinity, -Infinity, 1e999]}'
    line = to_json(document_of(a_turn(request=body)))
    request = json.loads(line, parse_constant=pytest.fail)["request"]
    assert request == {"messages": [], "temperature": "NaN", "bias": ["Infinity", "-Infinity", "Infinity"]}


def test_what_is_nested_beyond_reason_is_still_written() -> None:
    deep: Any = "the bottom"
    for _ in range(100_000):
        deep = [deep]
    line = to_json({"turns": [{"request": {"x": deep}, "choices": []}]})
    assert json.loads(line)["turns"][0]["choices"] == []


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    assert format_time(NOON + 123456) == "2026-11-21T12:00:00.123456Z"
    assert format_time(None) is None


@pytest.mark.parametrize(
    "text",
    ["2026-11-21T12:00:00Z", "2026-11-21T13:00:00.000000+01:00", "2026-11-21 12:00Z", "1795262400", "1795262400.0"],
)
def test_a_time_is_read_from_rfc_3339_or_seconds(text: str) -> None:
    assert parse_time(text) == NOON


def test_a_time_that_was_written_is_read_again() -> None:
    assert parse_time(str(format_time(NOON + 654321))) == NOON + 654321


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-21", "2026-11-21T12:00:00", "nan", "inf", "1e300", "-1e18"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_time(text)
