"""The format `tokens`, where answers are unusual: a model server that says what it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import JOB_ARN
from tests.model_servers import Exchange, model_server
from tests.raw_client import RawClient
from tests.rig import emulator_before

USER = {"role": "user", "content": "Hi"}


def choice(index: int, ids: list[int] | None, logprobs: list[tuple[str, float]] | None = None) -> dict[str, Any]:
    """One of an answer's choices."""
    entries = None if logprobs is None else [{"token": token, "logprob": value} for token, value in logprobs]
    return {
        "index": index,
        "message": {"role": "assistant", "content": str(index)},
        "finish_reason": "stop" if index == 0 else "length",
        **({} if ids is None else {"token_ids": ids}),
        **({} if entries is None else {"logprobs": {"content": entries}}),
    }


Exported = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def exported(database: Path) -> Exported:
    """Has the model answer a rollout's turns so, each (prompt's ids, its choices), and exports them as tokens."""

    def export(*answers: tuple[list[int] | None, list[dict[str, Any]]]) -> list[dict[str, Any]]:
        left = iter(answers)

        async def behave(exchange: Exchange) -> None:
            if exchange.path == "/tokenize":
                await exchange.answer(b"{}", 404)
                return
            ids, choices = next(left)
            body = {"choices": choices, **({} if ids is None else {"prompt_token_ids": ids})}
            await exchange.answer(json.dumps(body).encode())

        with model_server(behave) as model, emulator_before(model, database) as server:
            with RawClient(server.url, JOB_ARN) as client:
                for _ in answers:
                    assert client.sample("t", json.dumps({"messages": [USER]}).encode()).status == 200
            lines = httpx2.get(f"{server.url}/_emulator/export", params={"format": "tokens"}).text.splitlines()
        return [json.loads(line) for line in lines]

    return export


def test_of_several_choices_the_one_counts_that_the_next_prompt_goes_on_with(exported: Exported) -> None:
    (row,) = exported(
        ([1], [choice(0, [2]), choice(1, [3], [("c", -0.5)])]),
        ([1, 3, 4], [choice(0, [5], [("e", -1)])]),
    )
    assert (row["input_ids"], row["loss_mask"]) == ([1, 3, 4, 5], [0, 1, 0, 1])
    assert row["logprobs"] == [None, -0.5, None, -1]
    assert [turn["finish_reason"] for turn in row["turns"]] == ["length", "stop"]
    assert not any(name.startswith("choice") for name in row["missing"])


def test_of_several_choices_that_nothing_goes_on_with_the_first_is_taken_and_it_is_said(exported: Exported) -> None:
    (row,) = exported(([1], [choice(0, [2]), choice(1, [3])]))
    assert row["input_ids"] == [1, 2]
    assert row["missing"]["choice of turn 0"].endswith("so the first is taken")


def test_ids_that_only_the_logprobs_hold_are_taken(exported: Exported) -> None:
    (row,) = exported(([1], [choice(0, None, [("token_id:7", -0.25), ("token_id:8", -0.5)])]))
    assert (row["input_ids"], row["logprobs"]) == ([1, 7, 8], [None, -0.25, -0.5])
    assert row["turns"][0]["source"] == "answer"


def test_logprobs_of_another_number_of_tokens_are_left_out_and_it_is_said(exported: Exported) -> None:
    (row,) = exported(([1], [choice(0, [2, 3], [("b", -1)])]))
    assert (row["input_ids"], row["logprobs"]) == ([1, 2, 3], None)
    assert row["missing"]["logprobs of turn 0"] == "there are 1, for 2 tokens"


def test_a_turn_whose_tokens_cannot_be_had_is_left_out_and_it_is_said(exported: Exported) -> None:
    (row,) = exported(([1], [choice(0, [2])]), (None, [choice(0, [9])]), ([1, 2, 3], [choice(0, [4])]))
    assert row["input_ids"] == [1, 2, 3, 4]
    assert [turn["number"] for turn in row["turns"]] == [0, 2]
    assert row["missing"]["turn 1"] == "the model server has no /tokenize: it answers 404"


def test_an_answer_that_cannot_be_read_is_said(exported: Exported) -> None:
    (row,) = exported(([1], []))
    assert (row["input_ids"], row["missing"]["turn 0"]) == (None, "its answer could not be read: answer: no choices")


def test_a_retokenized_prompt_begins_a_sequence(exported: Exported) -> None:
    first, second = exported(([1], [choice(0, [2, 3])]), ([1, 23, 4], [choice(0, [5])]))
    assert (first["input_ids"], second["input_ids"]) == ([1, 2, 3], [1, 23, 4, 5])
    assert (first["loss_mask"], second["loss_mask"]) == ([0, 1, 1], [0, 0, 0, 1])
    assert second["begins"] == "the prompt of turn 1 does not begin with the tokens of turn 0: token 1 differs"


def test_logprobs_that_are_no_finite_numbers_are_absent_and_it_is_said(exported: Exported) -> None:
    (row,) = exported(([1], [choice(0, [2, 3, 4], [("a", float("-inf")), ("b", -0.5), ("c", float("nan"))])]))
    assert row["logprobs"] == [None, None, -0.5, None]
    assert row["missing"]["logprobs of turn 0"] == "2 of 3 are no finite numbers"


def test_ids_that_no_file_could_hold_are_none(exported: Exported) -> None:
    (row,) = exported(([1], [choice(0, [2**70])]))
    assert row["input_ids"] is None
    assert "turn 0" in row["missing"]
