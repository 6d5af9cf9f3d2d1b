"""What each format makes of what was captured."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx2

from emulator.inference.scripted.tokens import chat_prompt, pieces, token_ids
from tests.captured import TOOLS
from tests.conftest import JOB_ARN
from tests.export.conftest import Captured
from tests.export.rollouts import OTHER_JOB
from tests.stored import stored


def test_native_holds_every_turn_with_its_exact_bytes(captured: Captured) -> None:
    (row,) = captured.of("streamed")
    record, turns = stored(captured.database, "streamed")
    assert (row["group"], row["instance"]["answer"], row["rewards"]) == (record.group, 42, [0.0])
    for given, turn in zip(row["turns"], turns, strict=True):
        assert (given["number"], given["status"], given["streamed"]) == (turn.number, "completed", turn.number == 1)
        for side, body in (("request", turn.request), ("response", turn.response)):
            assert given[f"{side}_bytes"]["encoding"] == "utf-8"
            assert given[f"{side}_bytes"]["data"].encode() == body


def test_native_holds_bytes_that_are_no_text_as_base64(captured: Captured) -> None:
    with_bytes = {"X-Amzn-SageMaker-Job-Arn": OTHER_JOB, "X-Amzn-SageMaker-Trajectory-Id": "no-text"}
    httpx2.post(f"{captured.url}/v1/chat/completions", headers=with_bytes, content=b"\xff\x00")
    (row,) = captured.of("no-text")
    (turn,) = row["turns"]
    assert (turn["status"], turn["request"], turn["request_bytes"]["encoding"]) == ("failed", None, "base64")
    assert base64.b64decode(turn["request_bytes"]["data"]) == b"\xff\x00"
    assert captured.of("no-text", format="openai") == []


def test_openai_has_a_row_with_the_whole_conversation(captured: Captured) -> None:
    for name in ("whole", "streamed"):
        (row,) = captured.of(name, format="openai", job=JOB_ARN)
        user, call, tool, answer = row["messages"]
        assert (user, tool["content"]) == ({"role": "user", "content": "What is 6 * 7?"}, "42")
        assert call["tool_calls"][0]["function"]["name"] == "calculator"
        assert answer == {"role": "assistant", "content": "The answer is 42.", "weight": 1}
        assert (call["weight"], row["tools"], row["turns"], row["missing"]) == (1, TOOLS, [0, 1], {})
        assert (row["conversation"], row["conversations"], row["begins"]) == (0, 1, None)
    assert row["reward"] == 0.0


def test_openai_weighs_answers_that_came_with_the_prompt_with_0(captured: Captured) -> None:
    first, second = captured.of("interleaved", format="openai")
    assert [message.get("weight") for message in first["messages"]] == [None, 1, None, 1]
    assert (first["turns"], second["turns"]) == ([0, 2], [1, 3])
    assert second["begins"] == "turn 1 differs from turn 0 and its answer in message 0"
    assert [row["conversations"] for row in (first, second)] == [2, 2]


def test_openai_says_what_has_no_conversation_or_no_reward(captured: Captured) -> None:
    (text,) = captured.of("text", format="openai")
    assert (text["messages"], text["missing"]["turn 0"]) == (None, "it has no chat messages")
    (unrewarded,) = captured.of("unrewarded", format="openai")
    assert (unrewarded["reward"], unrewarded["missing"]) == (None, {"reward": "none came"})
    (several,) = captured.of("whole", format="openai", job=OTHER_JOB)
    assert several["missing"]["choice of turn 0"].endswith("so the first is taken")


def test_trl_sft_has_a_row_a_turn_whose_completion_is_the_models_own(captured: Captured) -> None:
    first, second = captured.of("without-ids", format="trl", **{"for": "sft"})
    assert first["prompt"] == [{"role": "user", "content": "What is 2 * 3?"}]
    (call,) = first["completion"]
    assert (call["content"], call["tool_calls"][0]["function"]["arguments"]) == ("", {"expression": "2 * 3"})
    assert [message["role"] for message in second["prompt"]] == ["user", "assistant", "tool"]
    assert second["prompt"][1] == call
    assert json.loads(second["tools"]) == TOOLS
    assert (second["reward"], second["turn"]) == (0.5, 1)


def test_trl_grpo_has_a_row_a_prompt_with_what_reward_functions_need(captured: Captured) -> None:
    rows = {
        row["group"]: row for row in captured.rows(format="trl", eligible="true", **{"for": "grpo"}) if row["group"]
    }
    assert rows.keys() == {"group-1", "group-2"}
    one = rows["group-1"]
    assert one["prompt"] == [{"role": "user", "content": "What is 6 * 7?"}]
    assert (json.loads(one["instance"])["answer"], one["rewards"]) == (42, [1.0, 0.0])
    assert rows["group-2"]["rewards"] == [0.5]


def test_trl_dpo_pairs_the_best_with_the_worst_of_a_group(captured: Captured) -> None:
    (row,) = captured.rows(format="trl", **{"for": "dpo"})
    assert (row["chosen_trajectory_id"], row["rejected_trajectory_id"]) == ("whole", "streamed")
    assert (row["chosen_reward"], row["rejected_reward"], row["group"]) == (1.0, 0.0, "group-1")
    assert row["prompt"] == [{"role": "user", "content": "What is 6 * 7?"}]
    assert [message["role"] for message in row["chosen"]] == ["assistant", "tool", "assistant"]
    with_failed = captured.rows(format="trl", failed="true", **{"for": "dpo"})
    assert [row["rejected_trajectory_id"] for row in with_failed] == ["streamed", "given-up"]


def test_tokens_are_those_of_the_answers_merged_into_one_sequence(captured: Captured) -> None:
    for name, reward in (("whole", 1.0), ("streamed", 0.0)):
        (row,) = captured.of(name, format="tokens", job=JOB_ARN)
        (native,) = captured.of(name, job=JOB_ARN)
        last = native["turns"][-1]
        (choice,) = last["choices"]
        assert row["input_ids"] == choice["prompt_token_ids"] + choice["token_ids"]
        assert row["missing"] == {}
        for turn, given in zip(native["turns"], row["turns"], strict=True):
            (said,) = turn["choices"]
            span = slice(given["start"], given["end"])
            assert row["input_ids"][: given["start"]] == said["prompt_token_ids"]
            assert row["input_ids"][span] == said["token_ids"]
            assert row["logprobs"][span] == [entry["logprob"] for entry in said["logprobs"]]
            assert (given["source"], given["finish_reason"]) == ("answer", said["finish_reason"])
            assert given["advantage"] == (1 if reward else -1)
        sampled = sum(given["end"] - given["start"] for given in row["turns"])
        assert sum(row["loss_mask"]) == sampled
        assert [mask == 0 for mask in row["loss_mask"]] == [value is None for value in row["logprobs"]]


def test_tokens_of_conversations_that_alternate_are_sequences_of_their_own(captured: Captured) -> None:
    first, second = captured.of("interleaved", format="tokens")
    assert [[turn["number"] for turn in row["turns"]] for row in (first, second)] == [[0, 2], [1, 3]]
    assert (first["sequences"], first["begins"]) == (2, None)
    assert second["begins"].startswith("the prompt of turn 1 does not begin with the tokens of turn 0: token ")


def test_tokens_of_plain_texts_go_on_from_one_another(captured: Captured) -> None:
    (row,) = captured.of("text", format="tokens")
    assert [turn["number"] for turn in row["turns"]] == [0, 1]
    assert row["logprobs"] is not None


def test_tokens_that_answers_do_not_have_come_from_the_model_servers_tokenizer(captured: Captured) -> None:
    (row,) = captured.of("without-ids", format="tokens")
    (conversation,) = captured.of("without-ids", format="openai")
    *_, answer = messages = conversation["messages"]
    prompt = chat_prompt({"messages": messages[:-1], "tools": TOOLS})
    assert row["input_ids"] == token_ids(prompt + pieces(answer["content"]))
    first, second = row["turns"]
    call = messages[1]["tool_calls"][0]["function"]
    said = token_ids(pieces(call["name"]) + pieces(call["arguments"]))
    assert row["input_ids"][first["start"] : first["end"]] == said
    assert {turn["source"] for turn in (first, second)} == {"tokenize"}
    assert (row["logprobs"], row["missing"]["logprobs of turn 0"]) == (None, "its answer has none")


def test_tokens_without_a_tokenizer_are_absent_and_it_is_said(captured: Captured, tmp_path: Any) -> None:
    options = ("--format", "tokens", "--trajectory", "without-ids")
    (row,) = map(json.loads, captured.write(tmp_path / "tokens.jsonl", *options).read_text().splitlines())
    assert (row["input_ids"], row["loss_mask"], row["logprobs"], row["turns"]) == (None, None, None, [])
    assert row["missing"]["turn 1"] == "its answer has no prompt_token_ids, and no tokenizer was given"


def test_advantages_are_of_the_whole_group_whatever_is_selected(captured: Captured) -> None:
    def advantages(**parameters: object) -> list[float | None]:
        rows = captured.rows(format="tokens", group="group-1", **parameters)
        return [turn["advantage"] for row in rows for turn in row["turns"]]

    assert advantages(min_reward=0.5) == [1, 1]
    assert advantages(min_reward=0.5, advantage="rloo") == [1, 1]
    assert advantages(max_reward=0.5, advantage="monte_carlo") == [0, 0]
    assert advantages(advantage="grpo_passk") == [1, 1, 0, 0]


def test_a_trajectory_without_a_group_has_no_advantage_and_it_is_said(captured: Captured) -> None:
    (row,) = captured.of("text", format="tokens")
    assert {turn["advantage"] for turn in row["turns"]} == {None}
    assert row["missing"]["advantage"] == "it has no group to be compared with"
    (unrewarded,) = captured.of("unrewarded", format="tokens")
    assert unrewarded["missing"]["advantage"].startswith("it is not eligible")


def test_rewards_of_turns_are_advantages_of_turns(captured: Captured) -> None:
    (row,) = captured.of("without-ids", format="tokens", advantage="monte_carlo")
    assert [turn["advantage"] for turn in row["turns"]] == [0.5, 0.25]
