"""What is read from a request and from an answer in one piece."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emulator.completion import TokenLogprob, read_completion
from tests.completion import delta, message_of, read, read_json, stream


def test_a_request_gives_its_messages_as_they_were_sent() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hé"}], "x": [1]}]
    completion = read_completion(json.dumps({"messages": messages, "temperature": 0.5}).encode(), b"{}", None)
    assert completion.messages == messages
    assert completion.request == {"messages": messages, "temperature": 0.5}
    assert completion.prompt is None


@pytest.mark.parametrize("prompt", ["Once", ["a", "b"], [1, 2]])
def test_a_request_for_a_plain_completion_gives_its_prompt(prompt: Any) -> None:
    completion = read_completion(json.dumps({"prompt": prompt}).encode(), b"{}", None)
    assert completion.prompt == prompt
    assert completion.messages is None


@pytest.mark.parametrize(
    ("request_body", "problem"),
    [
        (b"", "request: empty"),
        (b"[]", "request: not a JSON object"),
        (b'{"a"', "request: not JSON: Expecting ':' delimiter: line 1 column 5 (char 4)"),
        (b"[" * 100_000, "request: nested too deeply"),
    ],
)
def test_a_request_that_cannot_be_read_is_a_problem_and_the_answer_is_read_all_the_same(
    request_body: bytes, problem: str
) -> None:
    completion = read(stream(delta(content="hi")), request=request_body)
    assert completion.problem == problem
    assert completion.request is None
    assert completion.choices[0].message == {"content": "hi"}


def test_a_bad_request_does_not_hide_a_bad_answer() -> None:
    assert read_completion(b"", b"{}", None).problem == "request: empty; answer: no choices"


def test_messages_that_are_no_objects_are_none() -> None:
    assert read_completion(b'{"messages": ["hi"]}', b"{}", None).messages is None


def test_the_model_is_the_one_that_answered_else_the_one_that_was_asked_for() -> None:
    assert read(stream(delta(content="")), request=b'{"model": "default"}').model == "m"
    assert read(b"", request=b'{"model": "default"}').model == "default"


# As the real vLLM 0.32 answers.
VLLM_CHAT = b"""{"id":"chatcmpl-b57a","object":"chat.completion","created":1795262617,"model":"default","choices":[{
"index":0,"message":{"role":"assistant","content":"The answer","refusal":null,"annotations":null,"audio":null,
"function_call":null,"tool_calls":[{"id":"chatcmpl-tool-1","type":"function","function":{"name":"get_weather",
"arguments":"{}"}}],"reasoning":"Hm."},"logprobs":{"content":[{"token":"The","logprob":-1.69,"bytes":[84,104,101],
"top_logprobs":[]},{"token":" answer","logprob":-9999.0,"bytes":null,"top_logprobs":[]}]},"finish_reason":"stop",
"stop_reason":2,"token_ids":[504,2988],"routed_experts":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0",
"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,"prompt_tokens_details":null,
"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":[1,9690,198],"prompt_text":null,
"kv_transfer_params":null,"metrics":null}"""


def test_vllms_chat_answer_is_read_with_its_token_ids_and_logprobs() -> None:
    completion = read(VLLM_CHAT, "application/json")
    assert not completion.streamed
    assert (completion.problem, completion.error) == (None, None)
    assert completion.prompt_token_ids == [1, 9690, 198]
    (choice,) = completion.choices
    assert choice.message is not None
    assert choice.message["reasoning"] == "Hm."
    assert choice.message == json.loads(VLLM_CHAT)["choices"][0]["message"]
    assert (choice.finish_reason, choice.stop_reason, choice.text) == ("stop", 2, None)
    assert choice.token_ids == [504, 2988]
    assert choice.logprobs == [TokenLogprob("The", -1.69), TokenLogprob(" answer", -9999.0)]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 2)
    assert completion.usage.raw["total_tokens"] == completion.usage.total_tokens == 5


def test_the_openai_client_reads_the_same_from_a_json_answer() -> None:
    from openai.types.chat import ChatCompletion

    theirs = ChatCompletion.model_validate_json(VLLM_CHAT)
    ours = read(VLLM_CHAT, "application/json")
    for choice, their in zip(ours.choices, theirs.choices, strict=True):
        assert choice.message is not None
        assert choice.message["content"] == their.message.content
        assert choice.message["tool_calls"] == [call.to_dict() for call in their.message.tool_calls or []]
        assert choice.finish_reason == their.finish_reason
    assert ours.usage is not None
    assert theirs.usage is not None
    assert ours.usage.raw == theirs.usage.to_dict()


def test_a_plain_completion_has_text_and_the_prompt_tokens_of_each_choice() -> None:
    logprobs = {
        "tokens": ["A", " b"],
        "token_logprobs": [None, -1],
        "top_logprobs": [None, {" b": -1}],
        "text_offset": [0, 1],
    }
    choices = [
        {"index": 0, "text": "A b", "logprobs": logprobs, "token_ids": [7, 8], "prompt_token_ids": [1]},
        {"index": 1, "text": "", "token_ids": [], "prompt_token_ids": [2, 3], "finish_reason": "length"},
    ]
    completion = read_json({"object": "text_completion", "choices": choices})
    first, second = completion.choices
    assert (first.text, first.message, second.text) == ("A b", None, "")
    assert first.logprobs == [TokenLogprob("A", None), TokenLogprob(" b", -1.0)]
    assert (first.token_ids, second.token_ids) == ([7, 8], [])
    assert (first.prompt_token_ids, second.prompt_token_ids) == ([1], [2, 3])
    assert completion.prompt_token_ids == [1]


def test_choices_come_by_index() -> None:
    choices = [{"index": 1, "text": "b"}, {"index": 0, "text": "a"}]
    assert [choice.text for choice in read_json({"choices": choices}).choices] == ["a", "b"]


def test_an_error_instead_of_an_answer_is_the_models_message() -> None:
    completion = read_json({"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}})
    assert (completion.error, completion.problem, completion.choices) == ("too long", None, [])


def test_a_page_of_a_proxy_is_an_error_and_a_problem() -> None:
    completion = read(b"<html><title>502 Bad Gateway</title></html>", "text/html")
    assert completion.error == "502 Bad Gateway"
    assert (completion.problem or "").startswith("answer: not JSON")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "answer: empty"),
        (VLLM_CHAT[:300], "answer: not JSON: "),
        (b"[1]", "answer: not a JSON object"),
        (b'{"choices": []}', "answer: no choices"),
        (b'{"object": "list", "data": []}', "answer: no choices"),
        (b'{"choices": [3]}', "answer: a choice is not a JSON object"),
        (b'{"choices": [{"token_ids": [1, "2"]}]}', "answer: token_ids are no list of token ids"),
        (b'{"choices": [{"token_ids": [1, 9223372036854775808]}]}', "answer: token_ids are no list of token ids"),
        (b"[" * 100_000, "answer: nested too deeply"),
        (b'{"a": ' * 100_000, "answer: nested too deeply"),
        (b'{"usage": ' + b"9" * 5000 + b"}", "answer: not JSON: Exceeds the limit"),
    ],
)
def test_what_cannot_be_read_is_said(body: bytes, problem: str) -> None:
    completion = read(body, "application/json")
    assert (completion.problem or "").startswith(problem)
    assert completion.error is None


def test_numbers_that_are_none_and_types_that_do_not_fit_count_as_absent() -> None:
    choice = {
        "index": "x",
        "text": 5,
        "message": [],
        "finish_reason": 1,
        "stop_reason": True,
        "logprobs": {"content": [1, {}]},
    }
    body = {
        "model": 3,
        "choices": [choice],
        "usage": {"prompt_tokens": float("nan"), "completion_tokens": True, "total_tokens": -1},
    }
    completion = read_json(body)
    assert completion.model is None
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (
        None,
    ) * 3
    (read_choice,) = completion.choices
    assert (read_choice.index, read_choice.text, read_choice.message) == (0, None, None)
    assert (read_choice.finish_reason, read_choice.stop_reason) == (None, None)
    assert read_choice.logprobs == [TokenLogprob("", None)] * 2


def test_of_equal_keys_the_last_one_counts() -> None:
    assert read(b'{"choices": [{"text": "a", "text": "b"}]}', None).choices[0].text == "b"


def test_bytes_that_are_not_utf8_are_replaced_and_said() -> None:
    completion = read(b'\xef\xbb\xbf{"choices": [{"text": "a\xffb"}]}', "application/json")
    assert completion.choices[0].text == "a\ufffdb"
    assert completion.problem == "answer: byte 27 is not UTF-8"


def test_half_a_character_that_stays_alone_is_replaced() -> None:
    completion = read(
        rb'{"choices": [{"message": {"content": "a\ud83dz", "\udc00": 1}, "finish_reason": "\udc00"}]}', None
    )
    assert completion.choices[0].message == {"content": "a\ufffdz", "\ufffd": 1}
    assert completion.choices[0].finish_reason == "\ufffd"


def test_a_character_torn_apart_between_two_chunks_is_whole_again() -> None:
    assert message_of({"content": "\ud83d"}, {"content": "\ude00!"}) == {"content": "\U0001f600!"}
