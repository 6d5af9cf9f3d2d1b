"""A request and its answer, read as far as they can be.

The bytes come from a model, and from whoever wrote the agent: anything may be missing, of another type, or cut short.
A field of the wrong type counts as absent; `Completion.problem` says what could not be read. Bytes that are not UTF-8
become U+FFFD. `token_ids`, `prompt_token_ids`, `stop_reason` and `reasoning` are where vLLM 0.32 puts them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from emulator.completion.errors import message_in, plain_message
from emulator.completion.stream import Delta, events, is_stream
from emulator.completion.text import decode, load, mended, text_or_none


class TokenLogprob(NamedTuple):
    """A token as text, and its log probability: None where the model gave none, as for the first token of a prompt."""

    token: str
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that the model counted, and the object that says so, with whatever else it holds."""

    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    raw: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the `n` answers to a prompt."""

    index: int
    message: dict[str, Any] | None  #: chat: the message with all its fields, put together if it was streamed
    text: str | None  #: /v1/completions: the text
    finish_reason: str | None
    stop_reason: int | str | None  #: the stop string or token that ended it
    token_ids: list[int] | None  #: the sampled tokens, if `return_token_ids` asked for them
    prompt_token_ids: list[int] | None  #: the tokens of this choice's prompt (/v1/completions takes several prompts)
    logprobs: list[TokenLogprob] | None  #: of /v1/completions with `echo`: the prompt's tokens come first


@dataclass(frozen=True, slots=True)
class Completion:
    """What the bytes of one exchange say. Without a problem, nothing was left unread."""

    request: dict[str, Any] | None
    model: str | None  #: the name in the answer, else the one that was asked for
    choices: list[Choice]  #: by index
    usage: Usage | None  #: of a stream, the last that it reports
    streamed: bool
    error: str | None  #: the model's own message, if it sent an error instead of its answer or in the middle of it
    problem: str | None  #: what could not be read, and why

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The messages of a chat request, as they were sent."""
        messages = (self.request or {}).get("messages")
        return messages if isinstance(messages, list) and all(isinstance(m, dict) for m in messages) else None

    @property
    def prompt(self) -> str | list[Any] | None:
        """The prompt of a /v1/completions request, as it was sent: text, token ids, or a list of either."""
        prompt = (self.request or {}).get("prompt")
        return prompt if isinstance(prompt, str | list) else None

    @property
    def prompt_token_ids(self) -> list[int] | None:
        """The tokens of the prompt; of the first one, if there were several."""
        return self.choices[0].prompt_token_ids if self.choices else None


def read_completion(request: bytes, response: bytes, content_type: str | None) -> Completion:
    """Read a request and the body of its answer, whole JSON or a stream of server-sent events. Never raises."""
    problems: list[str] = []
    asked = _read_request(request, problems)
    of_the_request = len(problems)
    answer = _Answer(problems)
    text, not_utf8 = decode(response)
    if not_utf8:
        answer.note(not_utf8)
    streamed = is_stream(response, content_type)
    if streamed:
        answer.read_stream(text)
    else:
        answer.read_json(text)
    choices = [parts.whole(index, answer) for index, parts in sorted(answer.choices.items())]
    if not (choices or answer.error or problems[of_the_request:]):
        answer.note("no choices")
    if len(problems) > 3:
        problems[3:] = [f"and {len(problems) - 3} more"]
    return Completion(
        request=asked,
        model=answer.model or text_or_none((asked or {}).get("model")),
        choices=choices,
        usage=answer.usage,
        streamed=streamed,
        error=answer.error,
        problem="; ".join(problems) or None,
    )


def _read_request(request: bytes, problems: list[str]) -> dict[str, Any] | None:
    text, not_utf8 = decode(request)
    value, why = load(text)
    if why is None and not isinstance(value, dict):
        why = "not a JSON object"
    problems += [f"request: {problem}" for problem in (not_utf8, why) if problem]
    return value if isinstance(value, dict) else None


class _Answer:
    """What has been read of an answer: one JSON object, or the chunks of a stream one after another."""

    def __init__(self, problems: list[str]) -> None:
        self.model: str | None = None
        self.error: str | None = None
        self.usage: Usage | None = None
        self.prompt_token_ids: list[int] | None = None
        self.choices: dict[int, _Parts] = {}
        self._problems = problems
        self._where = "answer"

    def note(self, problem: str) -> None:
        self._problems.append(f"{self._where}: {problem}")

    def read_json(self, text: str) -> None:
        value, why = load(text)
        if why is None:
            self._take(value)
        else:
            self.note(why)
            self.error = plain_message(text.strip())

    def read_stream(self, text: str) -> None:
        chunks, rest = events(text)
        for number, data in enumerate(chunks, 1):
            if data == "[DONE]":
                rest = data
                break
            self._where = f"event {number}"
            value, why = load(data, mend=False)
            if why is None:
                self._take(value)
            else:
                self.note(why)
        self._where = "answer"
        if rest and rest != "[DONE]":
            self.note("the stream ends inside an event")
        elif not rest and not self.error:  # some servers end at their error
            self.note("the stream ends before [DONE]")

    def _take(self, value: object) -> None:
        """Add one JSON object to what is known."""
        try:
            if isinstance(value, dict):
                self._add(value)
            else:
                self.note("not a JSON object")
        except RecursionError:  # decoding goes deeper than we can
            self.note("nested too deeply")

    def _add(self, chunk: dict[str, Any]) -> None:
        choices = chunk.get("choices")
        if chunk.get("error") or not isinstance(choices, list):
            self.error = self.error or message_in(chunk)
        self.model = self.model or text_or_none(chunk.get("model"))
        if isinstance(usage := chunk.get("usage"), dict):
            self.usage = _usage(mended(usage))
        # vLLM says it again for every choice.
        self.prompt_token_ids = self.prompt_token_ids or self.token_ids(chunk, "prompt_token_ids")
        for position, choice in enumerate(choices if isinstance(choices, list) else []):
            if not isinstance(choice, dict):
                self.note("a choice is not a JSON object")
                continue
            index = _count(choice.get("index"))
            self.choices.setdefault(position if index is None else index, _Parts()).add(choice, self)

    def token_ids(self, holder: dict[str, Any], key: str) -> list[int] | None:
        """The token ids under a key; noted if they are there and cannot be: half of them must not pass for all."""
        ids = holder.get(key)
        if ids is None:
            return None
        if is_token_ids(ids):
            return list(ids)
        self.note(f"{key} are no list of token ids")
        return None


@dataclass(slots=True)
class _Parts:
    """What has been read of a choice. What grows with a stream is kept in pieces, and put together once."""

    message: dict[str, Any] | None = None
    delta: Delta = field(default_factory=Delta)
    texts: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[list[int]] = field(default_factory=list)
    prompt_token_ids: list[int] | None = None
    logprobs: list[list[TokenLogprob]] = field(default_factory=list)

    def add(self, choice: dict[str, Any], answer: _Answer) -> None:
        """Add what a chunk says of this choice, or all that an unstreamed answer says. Raises RecursionError."""
        if isinstance(message := choice.get("message"), dict):
            self.message = message
        if isinstance(delta := choice.get("delta"), dict):
            self.delta.add(delta)
        if isinstance(text := choice.get("text"), str):
            self.texts.append(text)
        self.finish_reason = text_or_none(choice.get("finish_reason")) or self.finish_reason
        stop_reason = choice.get("stop_reason")
        if isinstance(stop_reason, str) or type(stop_reason) is int:
            self.stop_reason = mended(stop_reason)
        if (ids := answer.token_ids(choice, "token_ids")) is not None:
            self.token_ids.append(ids)
        self.prompt_token_ids = self.prompt_token_ids or answer.token_ids(choice, "prompt_token_ids")
        if (logprobs := _logprobs(choice.get("logprobs"))) is not None:
            self.logprobs.append(logprobs)

    def whole(self, index: int, answer: _Answer) -> Choice:
        message = self.message
        if message is None:
            try:
                message = self.delta.whole()
            except RecursionError:
                answer.note("nested too deeply")
        return Choice(
            index=index,
            message=message,
            text=mended("".join(self.texts)) if self.texts else None,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            token_ids=list(chain(*self.token_ids)) if self.token_ids else None,
            prompt_token_ids=self.prompt_token_ids or answer.prompt_token_ids,
            logprobs=list(chain(*self.logprobs)) if self.logprobs else None,
        )


def _usage(raw: dict[str, Any]) -> Usage:
    return Usage(
        prompt_tokens=_count(raw.get("prompt_tokens")),
        completion_tokens=_count(raw.get("completion_tokens")),
        total_tokens=_count(raw.get("total_tokens")),
        raw=raw,
    )


def _logprobs(value: object) -> list[TokenLogprob] | None:
    """Those of a chat, {"content": [...], "refusal": [...]}, or of a completion, {"tokens", "token_logprobs"}."""
    if not isinstance(value, dict):
        return None
    tokens, numbers = value.get("tokens"), value.get("token_logprobs")
    if isinstance(tokens, list) and isinstance(numbers, list):
        return [_logprob(token, number) for token, number in zip_longest(tokens, numbers)]
    lists = [entries for key in ("content", "refusal") if isinstance(entries := value.get(key), list)]
    entries = [entry if isinstance(entry, dict) else {} for entry in chain(*lists)]
    return [_logprob(entry.get("token"), entry.get("logprob")) for entry in entries] if lists else None


def _logprob(token: object, number: object) -> TokenLogprob:
    """vLLM writes -9999.0 where it has none, or minus infinity."""
    if type(number) is int and abs(number) < 1 << 53:
        number = float(number)
    return TokenLogprob(
        mended(token) if isinstance(token, str) else "",
        number if isinstance(number, float) else None,
    )


def is_token_ids(value: object) -> bool:
    """Whether a value can be token ids: numbers of things in a list, small enough for a file's integers."""
    if not isinstance(value, list) or not all(type(token) is int for token in value):
        return False
    return not value or (min(value) >= 0 and max(value) < 1 << 63)


def _count(value: object) -> int | None:
    """A number of things, small enough for a database's integer."""
    return value if type(value) is int and 0 <= value < 1 << 63 else None
