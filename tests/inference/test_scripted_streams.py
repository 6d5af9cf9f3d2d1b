"""Streams of the scripted model server: that they say what the whole answer says."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from emulator.inference.scripted import Reply, Request, Rules, ScriptedServer, ToolCall
from tests.inference.test_scripted import CALCULATOR, CHAT, TEXT, answer_to, ask, events_of

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": ask(),
    "cut": ask(max_tokens=9),
    "stopped": ask(stop="model"),
    "choices": ask(n=3),
    "tool call": ask("12*7?", tools=[CALCULATOR]),
    "cut tool call": ask("12*7?", tools=[CALCULATOR], max_tokens=3),
    "no room for a name": ask(
        "12*7?", tools=[{"function": {**CALCULATOR["function"], "name": "a_calc-2"}}], max_tokens=2
    ),
    "json": ask(response_format={"type": "json_object"}),
    "surrogate": ask("\ud800"),
}


def gathered(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices of a stream, put together as a client does it."""
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        for part in event["choices"]:
            choice = found.setdefault(part["index"], {"message": {"content": None}, "calls": [], "ids": [], "lp": []})
            delta = part["delta"]
            for name in ("content", "reasoning", "role"):
                if delta.get(name) is not None:
                    choice["message"][name] = (choice["message"].get(name) or "") + delta[name]
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    choice["calls"].append({"id": call["id"], "type": call["type"], "function": {**call["function"]}})
                else:
                    choice["calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
            choice["ids"] += part.get("token_ids", [])
            choice["lp"] += (part["logprobs"] or {}).get("content", [])
            if part["finish_reason"]:
                choice["finish_reason"], choice["stop_reason"] = part["finish_reason"], part["stop_reason"]
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_says_what_the_whole_answer_says(name: str) -> None:
    asked = {**REQUESTS[name], "return_token_ids": True, "logprobs": True, "top_logprobs": 2}
    whole = answer_to(CHAT, **asked)
    events = events_of(CHAT, **asked, stream_options={"include_usage": True})
    for event in events:
        ChatCompletionChunk.model_validate(event)
    choices = gathered(events)
    assert len(choices) == len(whole["choices"])
    for choice in whole["choices"]:
        streamed = choices[choice["index"]]
        message = choice["message"]
        assert streamed["message"]["content"] == message["content"]
        assert streamed["message"]["role"] == "assistant"
        # The ids are made from the request's bytes, which differ.
        assert [call["function"] for call in streamed["calls"]] == [
            call["function"] for call in message.get("tool_calls", [])
        ]
        assert (streamed["finish_reason"], streamed["stop_reason"]) == (
            choice["finish_reason"],
            choice["stop_reason"],
        )
        assert streamed["ids"] == choice["token_ids"]
        assert "".join(entry["token"] for entry in streamed["lp"]) == "".join(
            entry["token"] for entry in choice["logprobs"]["content"]
        )
        if name != "tool call":  # there the name's pieces come in one event
            assert streamed["lp"] == choice["logprobs"]["content"]
    assert events[-1]["usage"] == whole["usage"]
    assert events[0]["prompt_token_ids"] == whole["prompt_token_ids"]
    assert not any("prompt_token_ids" in event for event in events[len(choices) :])


def test_events_come_in_the_order_of_a_real_server() -> None:
    events = events_of(CHAT, **ask(stream_options={"include_usage": True}))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(list(event["choices"][0]["delta"]) == ["content"] for event in events[1:-2])
    assert len(events) > 20
    assert events[-2]["choices"][0]["delta"] == {}
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["choices"] == []
    assert all(event["usage"] is None for event in events[:-1])


def test_usage_is_not_spoken_of_unless_asked_for() -> None:
    assert not any("usage" in event for event in events_of(CHAT, **ask()))
    assert not any("usage" in event for event in events_of(CHAT, **ask(stream_options={"include_usage": False})))


def test_all_events_of_a_stream_have_one_id() -> None:
    assert len({(event["id"], event["created"], event["model"]) for event in events_of(CHAT, **ask())}) == 1


def test_a_tool_call_comes_as_its_name_and_then_its_arguments_in_pieces() -> None:
    events = events_of(CHAT, **REQUESTS["tool call"])
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    calls = [event["choices"][0]["delta"]["tool_calls"][0] for event in events[1:-1]]
    assert calls[0]["function"] == {"name": "calculator", "arguments": ""}
    assert calls[0]["id"].startswith("call_")
    assert len(calls) > 3
    assert all(call["index"] == 0 and list(call["function"]) == ["arguments"] for call in calls[1:])
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_choices_of_a_stream_alternate() -> None:
    indices = [event["choices"][0]["index"] for event in events_of(CHAT, **ask(n=2))]
    assert indices[:6] == [0, 1, 0, 1, 0, 1]


def test_reasoning_and_several_calls_are_streamed_in_order() -> None:
    def script(request: Request) -> Reply:
        return Reply("Yes.", (ToolCall("a", '{"x":1}'), ToolCall("b", '{"y":2}')), "Let me see. ", "tool_calls")

    server = ScriptedServer(Rules(default=script))
    streamed = gathered(events_of(CHAT, server, **ask(stream_options={"include_usage": True})))[0]
    assert streamed["message"] == {"role": "assistant", "reasoning": "Let me see. ", "content": "Yes."}
    assert [call["function"] for call in streamed["calls"]] == [
        {"name": "a", "arguments": '{"x":1}'},
        {"name": "b", "arguments": '{"y":2}'},
    ]
    assert len({call["id"] for call in streamed["calls"]}) == 2


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("more", [{}, {"max_tokens": 4}, {"stop": " model"}, {"n": 2, "prompt": ["One", "Two"]}])
def test_a_text_stream_says_what_the_whole_text_says(more: dict[str, Any], echo: bool) -> None:
    asked = {"prompt": "Once upon", "logprobs": 2, "return_token_ids": True, "echo": echo, **more}
    whole = answer_to(TEXT, **asked)
    events = events_of(TEXT, **asked, stream_options={"include_usage": True})
    for choice in whole["choices"]:
        parts = [event["choices"][0] for event in events[:-1] if event["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [item for part in parts[:-1] for item in part["logprobs"][name]] == choice["logprobs"][name]
        assert [token for part in parts[:-1] for token in part["token_ids"]] == choice["token_ids"]
        assert parts[0]["prompt_token_ids"] == choice["prompt_token_ids"]
        assert all(part["prompt_token_ids"] is None for part in parts[1:-1] if "prompt_token_ids" in part)
    assert events[-1]["usage"] == whole["usage"]
    assert events[-1]["choices"] == []


def test_the_events_of_a_text_stream_are_completions() -> None:
    for event in events_of(TEXT, prompt="Once", logprobs=1)[:-1]:
        # The type wants a finish reason, which a stream has in its last event alone.
        event["choices"][0]["finish_reason"] = "stop"
        Completion.model_validate(event)
