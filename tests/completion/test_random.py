"""Random exchanges: nothing raises, and a message cut into deltas is the same again, for the OpenAI client too."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.completion import Completion, TokenLogprob, error_message, read_completion
from tests.completion import DONE, SSE, delta, event, read, stream

NAMES = ["choices", "index", "delta", "message", "content", "role", "tool_calls", "function", "name", "arguments", "id"]
NAMES += ["type", "text", "token_ids", "usage", "prompt_token_ids", "prompt_tokens", "logprobs", "tokens", "logprob"]
NAMES += ["token_logprobs", "token", "error", "detail", "msg", "loc", "model", "x"]
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=5)
LEAVES = st.none() | st.booleans() | st.integers(-1, 2) | st.integers() | st.floats() | ANY_TEXT
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
CHOICES = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6) | VALUES, max_size=3)
CHUNKS = st.builds(
    lambda choices, more: {**more, "choices": choices}, CHOICES, st.dictionaries(st.sampled_from(NAMES), VALUES)
)


def assert_can_be_written(completion: Completion) -> None:
    json.dumps(dataclasses.asdict(completion), ensure_ascii=False).encode()


@settings(deadline=None)
@given(st.binary(), st.binary(), st.sampled_from([None, SSE, "application/json", ";\xff"]))
def test_no_bytes_raise(request: bytes, response: bytes, content_type: str | None) -> None:
    assert_can_be_written(read_completion(request, response, content_type))
    error_message(response)


@settings(deadline=None)
@given(VALUES, st.lists(CHUNKS | VALUES, max_size=5), st.binary(max_size=4), st.integers(0, 2000))
def test_no_json_raises_streamed_or_not(request: Any, chunks: list[Any], noise: bytes, cut: int) -> None:
    sent = json.dumps(request).encode()
    body = stream(*chunks)
    for response in (
        body,
        body[:cut],
        body[:cut] + noise + body[cut:],
        *(json.dumps(chunk).encode() for chunk in chunks),
    ):
        assert_can_be_written(read_completion(sent, response, SSE))
        error_message(response)


TEXT = st.text(min_size=1, max_size=12)
CALLS = st.lists(st.tuples(TEXT, TEXT, st.text(max_size=12)), max_size=3)


@st.composite
def streamed_choice(draw: st.DrawFn, index: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A choice, and the chunks in which a server might send it."""

    def pieces(text: str) -> list[str]:
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | TEXT)}
    chunks = [delta(index, **{**message, "content": "" if message["content"] else None})]
    for key in ("reasoning", "refusal"):
        if text := draw(st.none() | TEXT):
            message[key] = text
            chunks += [delta(index, **{key: piece}) for piece in pieces(text)]
    chunks += [delta(index, content=piece) for piece in pieces(message["content"] or "") if message["content"]]
    for number, (call_id, name, arguments) in enumerate(draw(CALLS)):
        function = {"name": name, "arguments": arguments}
        message.setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})
        start = {"index": number, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        rest = [{"index": number, "function": {"arguments": piece}} for piece in pieces(arguments)]
        chunks += [delta(index, tool_calls=[call]) for call in (start, *rest)]
    logprobs: list[dict[str, Any]] = [
        {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}
        for token in draw(st.lists(TEXT, max_size=3))
    ]
    for entry in logprobs:
        chunks.append(delta(index))
        chunks[-1]["choices"][0]["logprobs"] = {"content": [entry], "refusal": None}
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    chunks.append(delta(index, finish_reason=reason))
    return {"message": message, "finish_reason": reason, "logprobs": logprobs}, chunks


@st.composite
def streamed_choices(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One to three choices, and their chunks interleaved."""
    drawn = [draw(streamed_choice(index)) for index in range(draw(st.integers(1, 3)))]
    order = [number for number, (_, chunks) in enumerate(drawn) for _ in chunks[1:]]
    rest = [iter(chunks[1:]) for _, chunks in drawn]
    # The first chunks come in order: the OpenAI client knows choices by their position.
    interleaved = [chunks[0] for _, chunks in drawn] + [next(rest[number]) for number in draw(st.permutations(order))]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return [choice for choice, _ in drawn], [*interleaved, {**interleaved[0], "choices": [], "usage": usage}]


@settings(deadline=None)
@given(streamed_choices(), st.sampled_from([b"\n", b"\r", b"\r\n"]), st.booleans())
def test_a_message_cut_into_deltas_is_the_same_again(
    drawn: tuple[list[dict[str, Any]], list[dict[str, Any]]], end: bytes, keep_alive: bool
) -> None:
    choices, chunks = drawn
    body = (b": ping\n\n" if keep_alive else b"").join([event(chunk) for chunk in chunks] + [DONE])
    completion = read(body.replace(b"\n", end))
    assert completion.problem is None
    assert [choice.message for choice in completion.choices] == [choice["message"] for choice in choices]
    assert [choice.finish_reason for choice in completion.choices] == [choice["finish_reason"] for choice in choices]


@settings(deadline=None)
@given(streamed_choices())
def test_the_openai_client_puts_a_stream_together_in_the_same_way(
    drawn: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in drawn[1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    theirs = state.current_completion_snapshot  # get_final_completion raises on finish_reason "length"
    ours = read(stream(*drawn[1]))
    for choice, their in zip(ours.choices, theirs.choices, strict=True):
        assert choice.message is not None
        assert choice.message.get("content") == their.message.content
        assert choice.message.get("refusal") == their.message.refusal
        assert choice.message.get("reasoning") == getattr(their.message, "reasoning", None)
        their_calls = [
            (call.id, call.type, {"name": call.function.name, "arguments": call.function.arguments})
            for call in their.message.tool_calls or []
        ]
        our_calls = choice.message.get("tool_calls", [])
        assert [(call["id"], call["type"], call["function"]) for call in our_calls] == their_calls
        assert choice.finish_reason == their.finish_reason
        their_logprobs = (their.logprobs.content if their.logprobs else None) or []
        assert (choice.logprobs or []) == [TokenLogprob(entry.token, entry.logprob) for entry in their_logprobs]
    assert ours.usage is not None
    assert theirs.usage is not None
    assert ours.usage.raw == theirs.usage.to_dict()
    assert ours.model == theirs.model
