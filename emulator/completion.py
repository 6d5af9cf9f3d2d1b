"""What one OpenAI-compatible exchange says, read from its raw bytes when somebody asks. Pure; never raises on bad bytes.

The bytes come from a model, and from whoever wrote the agent: anything may be missing, of another type, or cut short.
What can be read is read; `Completion.problem` says what could not. A field of the wrong type counts as absent.
Bytes that are not UTF-8, and surrogates without their other half, become U+FFFD: every text here can be encoded again.

The fields are those of OpenAI's chat completions and completions; `token_ids`, `prompt_token_ids`, `stop_reason` and
`reasoning` are where vLLM 0.32 puts them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Choice", "Completion", "TokenLogprob", "Usage", "error_message", "read_completion"]


class TokenLogprob(NamedTuple):
    """A token as text, and its log probability; None where the model gave none (the first token of an echoed prompt)."""

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
    message: dict[str, Any] | None  #: chat: the message, put together if it was streamed, other people's fields too
    text: str | None  #: /v1/completions: the text
    finish_reason: str | None
    stop_reason: int | str | None  #: the stop string or token that ended it
    token_ids: list[int] | None  #: the sampled tokens (`return_token_ids`)
    prompt_token_ids: list[int] | None  #: the tokens of this choice's prompt (/v1/completions may hold several prompts)
    logprobs: list[TokenLogprob] | None  #: with `echo` on /v1/completions, the prompt's tokens come first


@dataclass(frozen=True, slots=True)
class Completion:
    """What the bytes of one request and its answer say. No problem means that nothing was left unread."""

    request: dict[str, Any] | None
    model: str | None  #: the name in the answer, else the one that was asked for
    choices: list[Choice]  #: by index
    usage: Usage | None  #: of a stream, the last one it reports
    prompt_token_ids: list[int] | None  #: of a request with several prompts, the first one's: see the choices
    streamed: bool
    error: str | None  #: the model's own message, if it sent an error instead of an answer or in the middle of one
    problem: str | None  #: what could not be read, and why

    @property
    def messages(self) -> list[dict[str, Any]] | None:
        """The request's messages as they were sent."""
        messages = (self.request or {}).get("messages")
        return messages if isinstance(messages, list) and all(isinstance(m, dict) for m in messages) else None

    @property
    def prompt(self) -> str | list[Any] | None:
        """The prompt of a /v1/completions request as it was sent: text, token ids, or a list of either."""
        prompt = (self.request or {}).get("prompt")
        return prompt if isinstance(prompt, str | list) else None


def read_completion(request: bytes, response: bytes, content_type: str | None) -> Completion:
    """Read a request and the body of its answer, be it JSON or a stream of server-sent events."""
    asked, problems = _read_request(request)
    answer = _Answer(problems)
    streamed = _is_stream(response, content_type)
    text = _decode(response, "answer", problems)
    if streamed:
        answer.read_stream(text)
    else:
        answer.read_json(text)
    choices = answer.whole_choices()
    if not (choices or answer.error or problems):
        problems.append("answer: it has no choices")
    prompt_token_ids = answer.prompt_token_ids
    if prompt_token_ids is None and choices:
        prompt_token_ids = choices[0].prompt_token_ids
    return Completion(
        request=asked,
        model=answer.model or _text(asked and asked.get("model")),
        choices=choices,
        usage=_usage(answer.usage),
        prompt_token_ids=prompt_token_ids,
        streamed=streamed,
        error=answer.error,
        problem="; ".join([*problems[:3], *([f"and {len(problems) - 3} more"] if problems[3:] else [])]) or None,
    )


def error_message(body: bytes) -> str | None:
    """The model's own words in the body of an error, or None if it has none for people.

    Knows OpenAI's, vLLM's, FastAPI's and AWS's errors, short plain texts, and the titles of HTML pages.
    Of a body above 256 KiB (FastAPI echoes what it refuses) only the beginning is looked at.
    """
    head = body[: 1 << 18]
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    if text.startswith(("{", "[", '"')):
        value, why = _load(text) if len(head) == len(body) else (None, "too large")
        if why is None:
            return _message_in(value)
        found = _MESSAGE.search(text)
        return _text(_load(found[1])[0]) if found else None
    return _plain_message(text)


# ---- JSON and text ------------------------------------------------------------------------------

#: Escapes of surrogates: in pairs they are harmless, alone they make a text that cannot be encoded.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
#: The first text in a JSON object that is likely to be meant for people.
_MESSAGE = re.compile(r'"(?:message|Message|detail|msg|error)"\s*:\s*("[^"\\]+(?:\\.[^"\\]*)*")', re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>([^<]+)<", re.IGNORECASE)


def _decode(data: bytes, what: str, problems: list[str]) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        problems.append(f"{what}: byte {error.start} is not UTF-8")
        text = data.decode("utf-8", "replace")
    return text.removeprefix("\ufeff")


def _load(text: str) -> tuple[Any, str | None]:
    """The value of a JSON text, or why it has none."""
    try:
        return json.loads(text), None
    except RecursionError:
        return None, "its JSON is nested too deeply"
    except ValueError as error:  # also numbers of more than 4300 digits
        return None, f"not JSON: {error}" if text.strip() else "empty"


def _read_request(request: bytes) -> tuple[dict[str, Any] | None, list[str]]:
    problems: list[str] = []
    text = _decode(request, "request", problems)
    value, why = _load(text)
    if why is None and not isinstance(value, dict):
        why = "not a JSON object"
    if why is None and _SURROGATE.search(text):
        value, why = _try_finish(value)
    if why is not None:
        problems.append(f"request: {why}")
    return (value if why is None else None), problems


def _text(value: object) -> str | None:
    """A text that can be encoded, or None for anything else, and for the empty text."""
    return _mend(value) if isinstance(value, str) and value else None


def _mend(text: str) -> str:
    """Put surrogates together that two chunks of a stream had torn apart; U+FFFD for those that stay alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _count(value: object) -> int | None:
    """A number of tokens that a database column can hold."""
    return value if type(value) is int and 0 <= value < 1 << 63 else None


def _number(value: object) -> float | None:
    if isinstance(value, float):
        return value
    return float(value) if type(value) is int and abs(value) < 1 << 53 else None


# ---- errors -------------------------------------------------------------------------------------


def _message_in(value: object, depth: int = 5) -> str | None:
    """The text for people in a decoded error.

    {"error": {"message"}} and {"error": text} (OpenAI, vLLM, TGI), {"message"} (older vLLM), {"detail": text or
    [{"loc", "msg"}]} (FastAPI), {"Message"} (AWS).
    """
    if isinstance(value, str):
        return _text(value.strip())
    if depth and isinstance(value, dict):
        for key in ("message", "Message", "detail", "msg", "error"):
            if message := _message_in(value.get(key), depth - 1):
                where = value.get("loc")
                if key == "msg" and isinstance(where, list):
                    return _mend(f"{'.'.join(str(part) for part in where if isinstance(part, str | int))}: {message}")
                return message
    if depth and isinstance(value, list):
        return "; ".join(filter(None, (_message_in(entry, depth - 1) for entry in value[:5]))) or None
    return None


def _plain_message(text: str) -> str | None:
    """A short text as it is, a page of HTML as its title; None if that is no text for people, or JSON cut short."""
    if text.startswith("<"):
        from html import unescape  # noqa: PLC0415 - rarely needed

        title = _TITLE.search(text, 0, 1 << 16)
        return " ".join(unescape(title[1]).split()) or None if title else None
    if len(text) > 1000 or text.startswith(("{", "[", '"')):
        return None
    text = " ".join(text.split())
    return text if text and text.isprintable() and "\ufffd" not in text else None


# ---- streams ------------------------------------------------------------------------------------


def _is_stream(response: bytes, content_type: str | None) -> bool:
    """Whether the body is a stream: its beginning says it better than a wrong or missing Content-Type."""
    start = response[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"{", b"[")):  # a stream's line that begins like this would say nothing
        return False
    if start.startswith((b"data:", b"event:", b":")):
        return True
    return (content_type or "").partition(";")[0].strip().lower() == "text/event-stream"


def _events(text: str) -> Iterator[str]:
    """The data of a stream's events, the unfinished one at its end left out.

    Lines and fields as the WHATWG's HTML standard has them (9.2.6, "Interpreting an event stream"): lines end in LF,
    CR or CRLF and in nothing else that Python's splitlines knows. What `_unfinished` returns is not dispatched.
    """
    blocks = text.split("\n\n")
    del blocks[-1]
    for block in blocks:
        if data := _data(block):
            yield data


def _data(block: str) -> str:
    lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:") or line == "data"]
    return "\n".join(lines).strip()


class _Text(list[str]):
    """A text that arrives in pieces: joined once, at the end, so that long streams cost no more than their length."""


class _Rows:
    """A list that arrives in pieces: entries with an `index` are added to those with the same one."""

    __slots__ = ("by_index", "next")

    def __init__(self) -> None:
        self.by_index: dict[int, Any] = {}
        self.next = 0

    def add(self, entry: object) -> None:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is not int:
            index = self.next
        self.by_index[index] = _add(self.by_index.get(index), entry)
        self.next = max(self.next, index + 1)


#: Texts that are sent whole. Some servers repeat them in every chunk.
_LABELS = frozenset({"id", "role", "type"})


def _add(whole: Any, piece: object, name: str = "") -> Any:
    """The next piece of a delta added to what came before: texts are continued, objects merged, the rest replaced."""
    if piece is None:
        return whole
    if isinstance(piece, str):
        if name in _LABELS:
            return piece or whole
        if isinstance(whole, _Rows):  # content parts that a plain text follows (vLLM's `echo`)
            whole.add({"type": "text", "text": piece})
            return whole
        text = whole if isinstance(whole, _Text) else _Text()
        text.append(piece)
        return text
    if isinstance(piece, dict):
        fields = whole if isinstance(whole, dict) else {}
        for key, value in piece.items():
            fields[key] = _add(fields.get(key), value, key)
        return fields
    if isinstance(piece, list):
        rows = whole if isinstance(whole, _Rows) else _Rows()
        for entry in piece:
            rows.add(entry)
        return rows
    return piece


def _finish(value: Any) -> Any:
    """What `_add` collected as plain JSON values, and no text in it that cannot be encoded."""
    if isinstance(value, str):
        return _mend(value)
    if isinstance(value, _Text):
        return _mend("".join(value))
    if isinstance(value, _Rows):
        return [_finish(value.by_index[index]) for index in sorted(value.by_index)]
    if isinstance(value, list):
        return [_finish(entry) for entry in value]
    if isinstance(value, dict):
        return {_mend(key): _finish(entry) for key, entry in value.items()}
    return value
