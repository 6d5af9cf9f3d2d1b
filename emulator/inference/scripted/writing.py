"""How an answer is written, as far as chat and text completions agree: cutting it to measure, and framing events."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

from emulator.inference.scripted.reply import Reply, Rhythm, ToolCall
from emulator.inference.scripted.tokens import pieces
from emulator.inference.scripted.wire import Form, dump, dump_text

EPOCH = 1767225600  # 2026-01-01: `created` of the models, and the beginning of the days that answers come from
_DAYS = 30

FINGERPRINT = "scripted"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it is written, in tokens."""

    id: str
    name: str
    name_pieces: list[str]
    argument_pieces: list[str]

    @property
    def arguments(self) -> str:
        """The arguments' text; when the answer was cut, the beginning of it."""
        return "".join(self.argument_pieces)


@dataclass(frozen=True, slots=True)
class Choice:
    """A reply in tokens, after `stop` and `max_tokens`."""

    index: int
    reasoning: list[str]
    content: list[str] | None
    calls: list[Call]
    finish_reason: str | None  #: None: it breaks off
    stop_reason: str | None  #: vLLM's addition: the stop string that ended it
    logprobs: float | Sequence[float] | None = None  #: as the reply gives them
    rhythm: Rhythm | None = None

    def tokens(self) -> list[str]:
        """Everything that was said, in order."""
        calls = chain.from_iterable(call.name_pieces + call.argument_pieces for call in self.calls)
        return [*self.reasoning, *(self.content or ()), *calls]

    def logprob(self, position: int) -> float | None:
        """The log probability that a token was given."""
        given = self.logprobs
        if given is None or isinstance(given, int | float):
            return given
        return given[position] if position < len(given) else None


def is_broken(choices: Iterable[Choice]) -> bool:
    """Whether one breaks off, and the answer with it."""
    return any(choice.finish_reason is None for choice in choices)


def digest(path: str, body: bytes) -> str:
    """32 hexadecimal digits that equal requests share: of them the ids are made."""
    return hashlib.blake2b(body, digest_size=16, key=path.encode()[:64]).hexdigest()


def created(request_digest: str) -> int:
    """When the answer says it was made. Not the clock: equal requests get equal bytes."""
    return EPOCH + int(request_digest[:8], 16) % (_DAYS * 86400)


def cut(reply: Reply, form: Form, index: int, request_digest: str) -> Choice:
    """The reply in tokens, ended where a stop string or `max_tokens` ends it."""
    content, calls, finish, stop_reason = reply.content, reply.tool_calls, reply.finish_reason, None
    if finish is None:
        # OpenAI's documentation and vLLM agree: a named function ends with "stop".
        finish = "tool_calls" if calls and not form.tool_is_named else "stop"
    if content is not None and form.stops:
        ends = [(at, stop) for stop in form.stops if (at := content.find(stop)) >= 0]
        if ends:
            at, stop_reason = min(ends)
            content, calls, finish = content[:at], (), "stop"
    choice = Choice(
        index=index,
        reasoning=pieces(reply.reasoning or ""),
        content=None if content is None else pieces(content),
        calls=[_call(call, call.id or _call_id(request_digest, index, number)) for number, call in enumerate(calls)],
        finish_reason=finish,
        stop_reason=stop_reason,
        logprobs=reply.logprobs,
        rhythm=reply.rhythm,
    )
    limits = [limit for limit in (form.max_tokens, reply.max_tokens) if limit is not None]
    if limits:
        choice = _shortened(choice, min(limits))
    if reply.break_after is not None:
        choice = replace(_shortened(choice, reply.break_after), finish_reason=None)
    return choice


def _call(call: ToolCall, call_id: str) -> Call:
    arguments = call.arguments if isinstance(call.arguments, str) else dump_text(call.arguments)
    return Call(call_id, call.name, pieces(call.name), pieces(arguments))


def _shortened(choice: Choice, left: int) -> Choice:
    if len(choice.tokens()) <= left:
        return choice
    reasoning = choice.reasoning[:left]
    left -= len(reasoning)
    content = None if choice.content is None else choice.content[:left]
    left -= len(content or ())
    calls = []
    for call in choice.calls:
        if left < len(call.name_pieces):  # half a name is no call
            break
        left -= len(call.name_pieces)
        calls.append(Call(call.id, call.name, call.name_pieces, call.argument_pieces[:left]))
        left -= len(calls[-1].argument_pieces)
    return replace(choice, reasoning=reasoning, content=content, calls=calls, finish_reason="length", stop_reason=None)


def chunks(tokens: Sequence[str], rhythm: Rhythm | None) -> Iterable[tuple[str, list[str]]]:
    """The texts in which tokens are sent, each with the tokens that end in it."""
    if rhythm is None:
        return [(piece, [piece]) for piece in tokens]
    if rhythm.by == "token":
        parts = [list(tokens[at : at + rhythm.size]) for at in range(0, len(tokens), rhythm.size)]
        return [("".join(part), part) for part in parts]
    return _spread(tokens, _units("".join(tokens), rhythm))


def _units(text: str, rhythm: Rhythm) -> list[str]:
    if rhythm.by == "all":
        return [text] if text else []
    if rhythm.by == "character":
        units = list(text)
    elif rhythm.by == "line":
        units = text.splitlines(keepends=True)
    else:
        units = _WORD.findall(text)
    return ["".join(units[at : at + rhythm.size]) for at in range(0, len(units), rhythm.size)]


#: A word with the white space before it; what is left at the end is one as well.
_WORD = re.compile(r"\s*\S+|\s+")


def _spread(tokens: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    at, said, sent = 0, 0, 0
    for text in texts:
        sent += len(text)
        part = []
        while at < len(tokens) and said + len(tokens[at]) <= sent:
            part.append(tokens[at])
            said += len(tokens[at])
            at += 1
        yield text, part


def _call_id(request_digest: str, index: int, number: int) -> str:
    seed = f"{request_digest}/{index}/{number}".encode()
    return "call_" + hashlib.blake2b(seed, digest_size=12).hexdigest()


def usage(prompt_tokens: int, choices: Sequence[Choice]) -> dict[str, int]:
    """The usage object."""
    spoken = sum(len(choice.tokens()) for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": spoken,
        "total_tokens": prompt_tokens + spoken,
    }


def events(
    head: dict[str, Any],
    opening: Iterable[bytes],
    bodies: Sequence[Iterator[dict[str, Any]]],
    total: dict[str, int] | None,
    *,
    broken: bool,
) -> Iterator[bytes]:
    """The events of a stream: the opening ones, those of each choice in turn, the usage if asked for, [DONE].

    A broken one has neither of the last two.
    """
    before, after = frame(head, usage_asked=total is not None)
    yield from opening
    for row in zip_longest(*bodies):
        for choice in row:
            if choice is not None:
                yield before + dump(choice) + after
    if broken:
        return
    if total is not None:
        yield b"data: " + dump({**head, "choices": [], "usage": total}) + b"\n\n"
    yield DONE


def frame(head: dict[str, Any], *, usage_asked: bool) -> tuple[bytes, bytes]:
    """What surrounds the one choice of each event. OpenAI: with `include_usage`, all but the last have a null usage."""
    before = b"data: " + dump(head)[:-1] + b',"choices":['
    return before, b'],"usage":null}\n\n' if usage_asked else b"]}\n\n"
