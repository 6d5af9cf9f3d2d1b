"""What is read from a stream: events, and the deltas inside them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emulator.completion import TokenLogprob
from tests.completion import DONE, SSE, delta, event, message_of, read, stream


@pytest.mark.parametrize("content_type", [SSE, "Text/Event-Stream", "application/json", "", None])
def test_a_body_that_begins_as_a_stream_is_one_whatever_its_content_type(content_type: str | None) -> None:
    for start in (b"", b": ping\n\n", b"\xef\xbb\xbf", b"\r\n", b"event: message\n"):
        completion = read(start + stream(delta(content="hi")), content_type)
        assert completion.streamed
        assert completion.problem is None
        assert completion.choices[0].message == {"content": "hi"}


def test_json_that_says_it_is_a_stream_is_read_as_json() -> None:
    assert read(b' {"choices": [{"text": "a"}]}').choices[0].text == "a"


def test_an_empty_body_is_a_stream_if_its_content_type_says_so() -> None:
    assert read(b"").streamed
    assert read(b"").problem == "answer: the stream ends before [DONE]"


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_lines_may_end_in_any_of_three_ways(end: str) -> None:
    body = stream(delta(role="assistant", content="a\r\n"), delta(content="b", finish_reason="stop"))
    assert read(body.replace(b"\n", end.encode())) == read(body)


def test_a_line_does_not_end_at_a_separator_of_unicode() -> None:
    text = "a\u2028b\u2029c\x85d"
    body = b"data: " + json.dumps(delta(content=text), ensure_ascii=False).encode() + b"\n\n" + DONE
    assert read(body).choices[0].message == {"content": text}


def test_comments_and_other_fields_are_skipped_and_data_may_take_several_lines() -> None:
    body = b": keep-alive\n\nid: 1\nevent: x\nretry: 5\ndata\n\n"
    body += b'data:{"choices":\n: in between\ndata:  [{"text": "a"}]}\nx: y\n\n'
    completion = read(body + b"data:[DONE]\n\n")
    assert completion.problem is None
    assert completion.choices[0].text == "a"


def test_what_comes_after_done_is_not_read() -> None:
    assert read(stream(delta(content="a")) + event(delta(content="b"))).choices[0].message == {"content": "a"}


def test_done_needs_no_blank_line() -> None:
    assert read(stream(delta(content="a"), end=b"data: [DONE]")).problem is None


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        (b"", "answer: the stream ends before [DONE]"),
        (b": ping\n", "answer: the stream ends before [DONE]"),
        (b'data: {"choices": [', "answer: the stream ends inside an event"),
        (event(delta(content="c"))[:-1], "answer: the stream ends inside an event"),
        (b"data: [DON", "answer: the stream ends inside an event"),
    ],
)
def test_a_stream_that_was_cut_short_keeps_its_whole_events_and_says_so(end: bytes, problem: str) -> None:
    completion = read(stream(delta(content="a"), delta(content="b"), end=end))
    assert completion.choices[0].message == {"content": "ab"}
    assert completion.problem == problem


def test_an_event_that_cannot_be_read_is_skipped_and_said() -> None:
    bad = b"data: {oops\n\n" + event("x") + event([]) + event(3)
    completion = read(event(delta(content="a")) + bad + stream(delta(content="b")))
    assert completion.choices[0].message == {"content": "ab"}
    assert (completion.problem or "").startswith("event 2: not JSON: ")
    assert (completion.problem or "").endswith("; event 3: not a JSON object; event 4: not a JSON object; and 1 more")


@pytest.mark.parametrize("depth", [200, 400, 900, 3000, 100_000])
def test_a_delta_nested_deeply_does_not_stop_the_others(depth: int) -> None:
    nested = b'data: {"choices": [{"delta": {"x": ' + b"[" * depth + b"]" * depth + b"}}]}\n\n"
    completion = read(event(delta(content="a")) + nested + stream(delta(1, content="b")))
    assert completion.choices[-1].message == {"content": "b"}
    assert completion.choices[0].message is not None or completion.problem is not None


def test_texts_are_continued_and_nulls_change_nothing() -> None:
    message = message_of(
        {"role": "assistant", "content": None, "refusal": None},
        {"role": "assistant", "reasoning": "th", "reasoning_content": "T"},
        {"content": "Hel", "reasoning": "ink", "reasoning_content": "H"},
        {"content": "lo", "reasoning": None},
        {},
        {"refusal": "no"},
    )
    expected = {
        "role": "assistant",
        "content": "Hello",
        "refusal": "no",
        "reasoning": "think",
        "reasoning_content": "TH",
    }
    assert message == expected


def test_tool_calls_are_put_together_by_their_index() -> None:
    message = message_of(
        {"role": "assistant", "content": None},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f"}}]},
        {
            "tool_calls": [
                {"index": 0, "function": {"arguments": '{"x"'}},
                {"index": 1, "function": {"arguments": "{}"}},
            ]
        },
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"arguments": ": 1}"}}]},
    )
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_a_legacy_function_call_is_put_together() -> None:
    message = message_of({"function_call": {"name": "f", "arguments": "{"}}, {"function_call": {"arguments": "}"}})
    assert message == {"function_call": {"name": "f", "arguments": "{}"}}


def test_fields_of_other_servers_are_kept() -> None:
    message = message_of(
        {
            "audio": {"id": "a", "data": "AB", "expires_at": 1},
            "reasoning_details": [{"index": 0, "type": "t", "text": "x"}],
        },
        {"audio": {"data": "C", "expires_at": 2}, "reasoning_details": [{"index": 0, "type": "t", "text": "y"}]},
        {"annotations": [{"url": "u"}], "flag": True},
        {"annotations": [{"url": "v"}], "flag": False},
    )
    assert message == {
        "audio": {"id": "a", "data": "ABC", "expires_at": 2},
        "reasoning_details": [{"index": 0, "type": "t", "text": "xy"}],
        "annotations": [{"url": "u"}, {"url": "v"}],
        "flag": False,
    }


def test_a_list_of_parts_may_stand_between_plain_texts() -> None:
    message = message_of({"content": ""}, {"content": [{"type": "text", "text": "echo"}]}, {"content": "!"})
    assert message == {"content": [{"type": "text", "text": "echo"}, {"type": "text", "text": "!"}]}


def test_interleaved_choices_are_kept_apart() -> None:
    chunks = [delta(1, content="B"), delta(0, content="A"), delta(1, content="b"), delta(0, content="a")]
    completion = read(stream(*chunks, delta(0, finish_reason="stop"), delta(1, finish_reason="length")))
    assert [(c.index, c.message, c.finish_reason) for c in completion.choices] == [
        (0, {"content": "Aa"}, "stop"),
        (1, {"content": "Bb"}, "length"),
    ]


def test_vllms_stream_gives_token_ids_logprobs_and_usage() -> None:
    def lp(token: str, logprob: float) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": logprob, "bytes": None, "top_logprobs": []}]}

    def chunk(index: int, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"model": "default", "choices": [{"index": index, "delta": fields, "finish_reason": None, **more}]}

    first = {"role": "assistant", "content": ""}
    body = stream(
        chunk(0, first, logprobs=None) | {"prompt_token_ids": [1, 2], "prompt_text": None},
        chunk(1, first, logprobs=None) | {"prompt_token_ids": [1, 2]},
        chunk(0, {"content": "a"}, logprobs=lp("a", -0.5), token_ids=[7]),
        chunk(1, {"content": "b"}, token_ids=None)
        | {"usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}},
        chunk(0, {}, logprobs=lp("<|im_end|>", -1.5), token_ids=[8, 9], finish_reason="stop", stop_reason="x"),
        {"choices": [], "usage": {"prompt_tokens": 2, "total_tokens": 6, "completion_tokens": 4}},
    )
    completion = read(body)
    assert completion.problem is None
    assert completion.prompt_token_ids == [1, 2]
    first_choice, second = completion.choices
    assert first_choice.token_ids == [7, 8, 9]
    assert first_choice.logprobs == [TokenLogprob("a", -0.5), TokenLogprob("<|im_end|>", -1.5)]
    assert (first_choice.finish_reason, first_choice.stop_reason) == ("stop", "x")
    assert (second.token_ids, second.logprobs, second.prompt_token_ids) == (None, None, [1, 2])
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 4


def test_a_streamed_plain_completion_is_put_together() -> None:
    def chunk(text: str, **more: Any) -> dict[str, Any]:
        return {"object": "text_completion", "choices": [{"index": 0, "text": text, **more}]}

    lps = [{"tokens": [token], "token_logprobs": [-0.5]} for token in "ab"]
    body = stream(
        chunk("a", logprobs=lps[0], token_ids=[5], prompt_token_ids=[1]), chunk("b", logprobs=lps[1], token_ids=[6])
    )
    (choice,) = read(body).choices
    assert (choice.text, choice.message) == ("ab", None)
    assert (choice.token_ids, choice.prompt_token_ids) == ([5, 6], [1])
    assert choice.logprobs == [TokenLogprob("a", -0.5), TokenLogprob("b", -0.5)]


@pytest.mark.parametrize("end", [DONE, b""])
def test_an_error_inside_a_stream_is_the_models_message(end: bytes) -> None:
    body = stream(delta(content="a"), {"error": {"message": "engine died", "code": 500}}, end=end)
    completion = read(body)
    assert (completion.error, completion.problem) == ("engine died", None)
    assert completion.choices[0].message == {"content": "a"}


def test_an_error_that_is_null_is_none() -> None:
    completion = read(stream({**delta(content="a"), "error": None, "message": "x"}))
    assert completion.error is None


def test_a_long_stream_is_read_whole() -> None:
    chunk, count = "x" * 3200, 10_000
    completion = read(event(delta(content=chunk)) * count + DONE)
    assert completion.choices[0].message == {"content": chunk * count}
