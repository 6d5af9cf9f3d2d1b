"""The scripted model server: the answers that it gives to plain requests, and how the others ask it."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model
from openai.types.chat import ChatCompletion

from emulator.inference.model_server import ModelRequest, ModelServer
from emulator.inference.scripted import Reply, Request, Rules, ScriptedServer, ToolCall
from emulator.inference.scripted.tokens import likeliest, pieces, token_id

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def send(
    path: str, body: object = b"", method: str = "POST", server: ModelServer | None = None
) -> tuple[int, str, list[bytes]]:
    """Status, content type and the pieces of the body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def exchange() -> tuple[int, str, list[bytes]]:
        answer = await (server or ScriptedServer()).send(ModelRequest(path, raw, method))
        received = [piece async for piece in answer]
        answer.close()
        return answer.status, answer.headers["content-type"], received

    return asyncio.run(exchange())


def answer_to(path: str, server: ModelServer | None = None, **request: Any) -> dict[str, Any]:
    """The JSON of a request that succeeds."""
    status, content_type, received = send(path, request, server=server)
    assert (status, content_type) == (200, "application/json"), received
    body = json.loads(b"".join(received))
    assert isinstance(body, dict)
    return body


def events_of(path: str, server: ModelServer | None = None, **request: Any) -> list[dict[str, Any]]:
    """The JSON of each event of a stream, and that it is framed as one."""
    status, content_type, received = send(path, {**request, "stream": True}, server=server)
    assert (status, content_type) == (200, "text/event-stream; charset=utf-8"), received
    assert received.pop() == b"data: [DONE]\n\n"
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in received)
    return [json.loads(event.removeprefix(b"data: ")) for event in received]


def ask(text: str = "Hello?", **request: Any) -> dict[str, Any]:
    """A chat request of one user message."""
    return {"messages": [{"role": "user", "content": text}], **request}


def content(**request: Any) -> str:
    """What is said in the first choice."""
    text = answer_to(CHAT, **request)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def test_the_answer_says_that_a_script_speaks_and_what_it_heard() -> None:
    answer = ChatCompletion.model_validate(answer_to(CHAT, **ask("Who are you?")))
    assert answer.choices[0].message.content == (
        "This is job-runtime-local's scripted model, not a language model. "
        'You said: "Who are you?" (turn 1). Start with --model vllm:… or --model http://… for a real one.'
    )
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "default", "scripted")
    assert answer.id.startswith("chatcmpl-")


def test_turns_are_counted_by_what_the_assistant_said() -> None:
    said = [("system", "Be brief."), ("user", "One"), ("assistant", "1"), ("user", "Two")]
    messages = [{"role": role, "content": text} for role, text in said]
    assert 'You said: "Two" (turn 2).' in content(messages=messages)


def test_a_long_message_is_quoted_by_its_beginning() -> None:
    assert f'"{"a" * 200}…"' in content(**ask("a" * 5000))


def test_content_may_be_a_list_of_parts() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    parts = [{"type": "text", "text": "one "}, image, {"type": "text", "text": "two"}]
    assert 'You said: "one two"' in content(messages=[{"role": "user", "content": parts}])


def test_the_model_is_called_as_the_request_calls_it() -> None:
    assert answer_to(CHAT, **ask(model="anything/at-all"))["model"] == "anything/at-all"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_equal_requests_get_equal_bytes_and_others_do_not(path: str, stream: bool) -> None:
    request = ask(prompt="Hello?", stream=stream, n=2, return_token_ids=True, logprobs=1 if path == TEXT else True)
    assert send(path, request) == send(path, request)
    assert send(path, request) != send(path, {**request, "model": "another"})


def test_the_time_of_an_answer_lies_in_a_fixed_month() -> None:
    created = answer_to(CHAT, **ask())["created"]
    assert 1767225600 <= created < 1767225600 + 30 * 86400


def test_choices_differ_from_each_other() -> None:
    choices = answer_to(CHAT, **ask(n=3))["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) == 3


def test_max_tokens_cut_the_answer_between_two_tokens() -> None:
    uncut = pieces(content(**ask()))
    for limit in ({"max_tokens": 5}, {"max_completion_tokens": 5}, {"max_tokens": 9, "max_completion_tokens": 5}):
        answer = answer_to(CHAT, **{**ask(), **limit})
        assert answer["choices"][0]["message"]["content"] == "".join(uncut[:5])
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 5


def test_an_answer_that_fits_max_tokens_is_whole() -> None:
    length = answer_to(CHAT, **ask())["usage"]["completion_tokens"]
    assert answer_to(CHAT, **ask(max_tokens=length))["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", ["scripted", ["language", " scripted", "never said"]])
def test_the_answer_ends_before_the_first_stop_string(stop: object) -> None:
    choice = answer_to(CHAT, **ask(stop=stop))["choices"][0]
    assert choice["message"]["content"].rstrip() == "This is job-runtime-local's"
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"].strip() == "scripted"


def test_usage_counts_the_prompt_once_and_every_choice() -> None:
    one, three = (answer_to(CHAT, **ask(n=n, max_tokens=7))["usage"] for n in (1, 3))
    assert three["prompt_tokens"] == one["prompt_tokens"] > 0
    assert (one["completion_tokens"], three["completion_tokens"]) == (7, 21)
    assert three["total_tokens"] == three["prompt_tokens"] + 21


def test_tools_and_longer_messages_make_a_longer_prompt() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    requests = [ask(), ask("Hello, is anybody there?"), ask(tools=[tool])]
    short, longer, tools = (answer_to(CHAT, **request)["usage"]["prompt_tokens"] for request in requests)
    assert short < longer
    assert short < tools


def test_logprobs_spell_the_content() -> None:
    answer = ChatCompletion.model_validate(answer_to(CHAT, **ask("Grüße 🎉", logprobs=True, top_logprobs=3)))
    choice = answer.choices[0]
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    assert "".join(entry.token for entry in entries) == choice.message.content
    assert answer.usage is not None
    assert len(entries) == answer.usage.completion_tokens
    for entry in entries:
        assert bytes(entry.bytes or ()) == entry.token.encode()
        assert entry.logprob < 0
        assert entry.top_logprobs[0].token == entry.token
        assert len({top.token for top in entry.top_logprobs}) == 3


def test_logprobs_without_alternatives_have_none() -> None:
    entries = answer_to(CHAT, **ask(logprobs=True))["choices"][0]["logprobs"]["content"]
    assert all(entry["top_logprobs"] == [] for entry in entries)


@given(st.text(min_size=1), st.integers(0, 10000), st.integers(1, 20))
def test_log_probabilities_fall_and_are_those_of_less_than_everything(piece: str, position: int, count: int) -> None:
    found = likeliest(piece, position, count)
    assert len(found) == len(dict(found)) == count
    chances = [math.exp(logprob) for _, logprob in found]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) < 1


def test_token_ids_come_where_vllm_puts_them() -> None:
    answer = answer_to(CHAT, **ask(return_token_ids=True))
    assert len(answer["prompt_token_ids"]) == answer["usage"]["prompt_tokens"]
    spoken = answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["token_ids"] == [token_id(piece) for piece in pieces(spoken)]
    assert "prompt_token_ids" not in answer_to(CHAT, **ask())


def test_a_turn_is_the_beginning_of_the_next_turns_prompt() -> None:
    first = ask("What is 2 + 2?", return_token_ids=True, tools=[CALCULATOR])
    turn = answer_to(CHAT, **first)
    said = turn["choices"][0]
    result = {"role": "tool", "tool_call_id": said["message"]["tool_calls"][0]["id"], "content": "4"}
    following = answer_to(CHAT, **{**first, "messages": [*first["messages"], said["message"], result]})
    beginning = turn["prompt_token_ids"] + said["token_ids"]
    assert following["prompt_token_ids"][: len(beginning)] == beginning


CALCULATOR: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
    },
}


@given(st.text())
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@given(st.text(), st.integers(0, 20))
def test_a_text_cut_between_pieces_keeps_them(text: str, count: int) -> None:
    kept = pieces(text)[:count]
    assert pieces("".join(kept)) == kept


def test_token_ids_are_the_same_in_every_process() -> None:
    assert [token_id(piece) for piece in ("Hello", " world", "!")] == [35202, 33483, 32723]


def test_text_is_written_as_it_is() -> None:
    _, _, received = send(CHAT, ask("Grüße 🎉"))
    assert "Grüße 🎉".encode() in received[0]
    assert b": " not in received[0].replace(b"said: ", b"")


def test_a_lone_surrogate_is_escaped() -> None:
    body = b'{"messages": [{"role": "user", "content": "half: \\ud83d."}], "logprobs": true, "return_token_ids": true}'
    status, _, received = send(CHAT, body)
    assert status == 200
    assert json.loads(received[0])["choices"][0]["message"]["content"].count("half: \ud83d.") == 1


def test_the_models_are_those_that_agents_ask_for() -> None:
    status, _, received = send("/v1/models", method="GET")
    assert status == 200
    models = json.loads(received[0])
    assert models["object"] == "list"
    assert [Model.model_validate(model).id for model in models["data"]] == ["default", "scripted"]


def test_tokenize_agrees_with_the_tokens_of_an_answer() -> None:
    answer = answer_to(CHAT, **ask(return_token_ids=True))
    tokenized = answer_to("/tokenize", **ask())
    assert tokenized["tokens"] == answer["prompt_token_ids"]
    assert tokenized["count"] == answer["usage"]["prompt_tokens"]
    assert tokenized["max_model_len"] > 0
    assert answer_to("/tokenize", prompt="Hello there")["count"] == 2
    assert answer_to("/tokenize", prompt="Hello there", return_token_strs=True)["token_strs"] == ["Hello", " there"]


def test_another_script_says_other_things() -> None:
    def script(request: Request) -> Reply:
        return Reply("Yes.", (ToolCall("look", "{}"),), reasoning="Hm. ", finish_reason="tool_calls")

    answer = answer_to(CHAT, ScriptedServer(Rules(default=script)), **ask(return_token_ids=True))
    choice = answer["choices"][0]
    assert choice["message"]["content"] == "Yes."
    assert choice["message"]["reasoning"] == "Hm. "
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert choice["finish_reason"] == "tool_calls"
    assert choice["token_ids"] == [token_id(piece) for piece in ["Hm", ".", " ", "Yes", ".", "look", "{}"]]


def test_it_is_ready_from_the_beginning_and_a_closed_answer_ends() -> None:
    async def body() -> None:
        server = ScriptedServer()
        await server.start()
        health = await server.health()
        assert health.ready
        answer = await server.send(ModelRequest(CHAT, json.dumps(ask(stream=True)).encode()))
        received = []
        async for piece in answer:
            received.append(piece)
            answer.close()
            answer.close()
        assert len(received) == 1
        await server.aclose()

    asyncio.run(body())
