"""Chat completions: choices written as OpenAI and vLLM write them, whole or as events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emulator.inference.scripted.tokens import likeliest, token_ids
from emulator.inference.scripted.wire import Form, dump
from emulator.inference.scripted.writing import (
    FINGERPRINT,
    Call,
    Choice,
    chunks,
    created,
    events,
    frame,
    is_broken,
    usage,
)


def whole(form: Form, request_digest: str, prompt: Sequence[str], choices: Sequence[Choice]) -> bytes:
    """The answer in one JSON document."""
    body = {
        **_head(form, request_digest, "chat.completion"),
        "choices": [_whole_choice(form, choice) for choice in choices],
        "usage": usage(len(prompt), choices),
    }
    if form.token_ids:
        body["prompt_token_ids"] = token_ids(prompt)
    return dump(body)


def stream(form: Form, request_digest: str, prompt: Sequence[str], choices: Sequence[Choice]) -> Iterator[bytes]:
    """The answer in server-sent events, about one a token."""
    head = _head(form, request_digest, "chat.completion.chunk")
    return events(
        head,
        _opening(form, head, prompt, choices),
        [_deltas(form, choice) for choice in choices],
        usage(len(prompt), choices) if form.include_usage else None,
        broken=is_broken(choices),
    )


def _head(form: Form, request_digest: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request_digest}",
        "object": kind,
        "created": created(request_digest),
        "model": form.model,
        "system_fingerprint": FINGERPRINT,
    }


def _whole_choice(form: Form, choice: Choice) -> dict[str, Any]:
    content = None if choice.content is None else "".join(choice.content)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if choice.reasoning:
        message["reasoning"] = "".join(choice.reasoning)  # vLLM's name for it
    if choice.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.calls
        ]
    written = {
        "index": choice.index,
        "message": message,
        "logprobs": _logprobs(form, choice, choice.tokens(), 0),
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
    }
    if form.token_ids:
        written["token_ids"] = token_ids(choice.tokens())
    return written


def _opening(form: Form, head: dict[str, Any], prompt: Sequence[str], choices: Sequence[Choice]) -> Iterator[bytes]:
    """The events that name the role. In vLLM they, and no later ones, carry the prompt's token ids."""
    first = {**head, "prompt_token_ids": token_ids(prompt)} if form.token_ids else head
    before, after = frame(first, usage_asked=form.include_usage)
    for choice in choices:
        delta = {"role": "assistant", "content": None if choice.content is None else ""}
        yield before + dump({"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}) + after


def _deltas(form: Form, choice: Choice) -> Iterator[dict[str, Any]]:
    position = 0
    for delta, spoken in _parts(choice):
        written: dict[str, Any] = {"index": choice.index, "delta": delta}
        written["logprobs"] = _logprobs(form, choice, spoken, position)
        written["finish_reason"] = None
        if form.token_ids:
            written["token_ids"] = token_ids(spoken)
        position += len(spoken)
        yield written
    if choice.finish_reason is not None:
        yield {
            "index": choice.index,
            "delta": {},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }


def _parts(choice: Choice) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The deltas, each with the tokens that it says."""
    for text, tokens in chunks(choice.reasoning, choice.rhythm):
        yield {"reasoning": text}, tokens
    for text, tokens in chunks(choice.content or (), choice.rhythm):
        yield {"content": text}, tokens
    for number, call in enumerate(choice.calls):
        yield {"tool_calls": [_call_beginning(number, call)]}, call.name_pieces
        for text, tokens in chunks(call.argument_pieces, choice.rhythm):
            yield {"tool_calls": [{"index": number, "function": {"arguments": text}}]}, tokens


def _call_beginning(number: int, call: Call) -> dict[str, Any]:
    return {"index": number, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}


def _logprobs(form: Form, choice: Choice, tokens: Sequence[str], position: int) -> dict[str, Any] | None:
    if form.logprobs is None:
        return None
    entries = []
    for offset, piece in enumerate(tokens):
        at = position + offset
        found = likeliest(piece, at, form.logprobs, choice.logprob(at))
        top = [_entry(other, logprob) for other, logprob in found[: form.logprobs]]
        entries.append({**_entry(*found[0]), "top_logprobs": top})
    return {"content": entries}


def _entry(piece: str, logprob: float) -> dict[str, Any]:
    return {"token": piece, "logprob": logprob, "bytes": list(piece.encode("utf-8", "replace"))}
