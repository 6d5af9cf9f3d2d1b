"""What the scripted model server refuses, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.inference.test_scripted import CALCULATOR, CHAT, TEXT, ask, send


def refusal(path: str, body: object, method: str = "POST") -> tuple[int, dict[str, Any]]:
    status, content_type, received = send(path, body, method)
    assert content_type == "application/json"
    error = json.loads(b"".join(received))["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["code"] == status
    return status, error


@pytest.mark.parametrize("path", ["/", "/v1/embeddings", "/v1/models/default", "/v1/chat/completions/"])
def test_an_unknown_path_is_not_found(path: str) -> None:
    assert refusal(path, ask())[0] == 404


@pytest.mark.parametrize(("method", "path"), [("GET", CHAT), ("POST", "/v1/models"), ("GET", "/tokenize")])
def test_a_method_that_does_not_fit_is_not_allowed(method: str, path: str) -> None:
    assert refusal(path, ask(), method)[0] == 405


@pytest.mark.parametrize("path", [CHAT, TEXT, "/tokenize"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'"text"', b"null", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(path: str, body: bytes) -> None:
    status, error = refusal(path, body)
    assert (status, error["type"]) == (400, "BadRequestError")


TOOL = {"tools": [CALCULATOR]}


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("messages", {"messages": None}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "Hello"}),
        ("messages.0", {"messages": ["Hello"]}),
        ("messages.0.role", {"messages": [{"content": "Hello"}]}),
        ("messages.0.content", {"messages": [{"role": "user", "content": 1}]}),
        ("messages.0.tool_calls", {"messages": [{"role": "assistant", "tool_calls": [1]}]}),
        ("model", {"model": 1}),
        ("temperature", {"temperature": -0.1}),
        ("temperature", {"temperature": 2.1}),
        ("temperature", {"temperature": "1"}),
        ("temperature", {"temperature": float("nan")}),
        ("top_p", {"top_p": 1.5}),
        ("n", {"n": 0}),
        ("n", {"n": 129}),
        ("n", {"n": 1.5}),
        ("n", {"n": True}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_completion_tokens", {"max_completion_tokens": -1}),
        ("stop", {"stop": 1}),
        ("stop", {"stop": ["a", ""]}),
        ("stream", {"stream": "yes"}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("stream_options", {"stream": True, "stream_options": True}),
        ("logprobs", {"logprobs": 1}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
        ("return_token_ids", {"return_token_ids": 1}),
        ("tools", {"tools": []}),
        ("tools", {"tools": [{"type": "function"}]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {**TOOL, "tool_choice": "any"}),
        ("tool_choice", {**TOOL, "tool_choice": {"type": "function"}}),
        ("tool_choice", {**TOOL, "tool_choice": {"type": "function", "function": {"name": "unknown"}}}),
        ("response_format", {"response_format": "json"}),
        ("response_format", {"response_format": {"type": "xml"}}),
        ("response_format", {"response_format": {"type": "json_schema"}}),
        ("structured_outputs", {"guided_json": "{"}),
    ],
)
def test_a_chat_request_is_checked(param: str, more: dict[str, Any]) -> None:
    status, error = refusal(CHAT, {**ask(), **more})
    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": 1}),
        ("prompt", {"prompt": ["a", 1]}),
        ("prompt", {"prompt": [[]]}),
        ("prompt", {"prompt": [-1]}),
        ("prompt", {"prompt": [49152]}),
        ("prompt", {"prompt": [True]}),
        ("suffix", {"suffix": "the end"}),
        ("logprobs", {"logprobs": 21}),
        ("logprobs", {"logprobs": True}),
        ("echo", {"echo": 1}),
        ("max_tokens", {"max_tokens": 0}),
        ("stream_options", {"stream_options": {}}),
    ],
)
def test_a_text_request_is_checked(param: str, more: dict[str, Any]) -> None:
    status, error = refusal(TEXT, {"prompt": "Once", **more})
    assert (status, error["param"]) == (400, param)


def test_a_text_to_tokenize_is_a_prompt_or_messages() -> None:
    assert refusal("/tokenize", {"prompt": 1})[0] == 400


@pytest.mark.parametrize("schema", [{"type": "string", "enum": [1]}, {"type": "number", "enum": [float("inf")]}, 7])
def test_a_schema_without_an_instance_is_named_in_the_refusal(schema: object) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    status, error = refusal(CHAT, ask(response_format=wanted))
    assert (status, error["param"]) == (400, "response_format")
    parameters = {"properties": {"a": schema}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "look", "parameters": parameters}}
    status, error = refusal(CHAT, ask(tools=[tool], tool_choice="required", stream=True))
    assert (status, error["param"]) == (400, "tools")
    assert "`look`" in error["message"]


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    nested = b'{"not":' * 20_000 + b"true" + b"}" * 20_000
    assert refusal(CHAT, b'{"messages":[{"role":"user"}],"guided_json":' + nested + b"}")[0] == 400
    nested = b'{"not":' * 400 + b"true" + b"}" * 400
    assert refusal(CHAT, b'{"messages":[{"role":"user"}],"guided_json":' + nested + b"}")[0] == 400


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 30)
    | st.floats()
    | st.sampled_from(["", "a", "tool", "auto", "object"]),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "function", "name", "parameters", "type", "json", "properties", "text"]
            ),
            parts,
            max_size=4,
        )
    ),
    max_leaves=6,
)
members = st.sampled_from(
    [
        *("model", "messages", "prompt", "n", "stop", "max_tokens", "stream"),
        *("stream_options", "logprobs", "top_logprobs", "tools", "tool_choice", "echo"),
        *("suffix", "response_format", "structured_outputs", "guided_json", "temperature", "return_token_ids"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([CHAT, TEXT, "/tokenize"]), st.dictionaries(members, values, max_size=3))
def test_any_object_is_answered_or_refused(path: str, more: dict[str, Any]) -> None:
    request = {**ask("12*7", tools=[CALCULATOR]), "prompt": "Once", **more}
    assert send(path, request)[0] in (200, 400)


words = [
    "type",
    "required",
    "items",
    "enum",
    "const",
    "minLength",
    "minimum",
    "multipleOf",
    "anyOf",
    "allOf",
    "not",
    "$ref",
]
anything = values | st.sampled_from(["string", "#", "#/properties", "#/required", ["expression"], [{"type": "array"}]])


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(words), anything, max_size=3),
    st.dictionaries(st.sampled_from(words), anything, max_size=3),
    st.sampled_from(["auto", "required"]),
)
def test_any_schema_is_satisfied_or_refused(whole: dict[str, Any], part: dict[str, Any], choice: str) -> None:
    parameters = {**whole, "properties": {"expression": {"type": "string", **part}}}
    tool = {"function": {"name": "calc", "parameters": parameters}}
    assert send(CHAT, ask("12*7", tools=[tool], tool_choice=choice))[0] in (200, 400)
