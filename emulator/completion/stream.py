"""Server-sent events, and the messages that arrive in pieces inside them."""

from __future__ import annotations

import re
from typing import Any

from emulator.completion.text import mended


def is_stream(body: bytes, content_type: str | None) -> bool:
    """Whether a body is a stream: how it begins says it better than a Content-Type that is missing or wrong."""
    start = body[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"{", b"[")):  # a stream's line that begins like this would say nothing
        return False
    if start.startswith((b"data:", b"event:", b":")):
        return True
    return (content_type or "").partition(";")[0].strip().lower() == "text/event-stream"


#: How vLLM and others say, after a good status, that they failed in the middle of a stream.
_ERROR_EVENT = re.compile(rb'(?:^|[\r\n])data: ?\{\s*"error"\s*:')


def reports_error(body: bytes) -> bool:
    """Whether one of a stream's events is an error."""
    return b'"error"' in body and _ERROR_EVENT.search(body) is not None


def events(text: str) -> tuple[list[str], str]:
    """The data of a stream's events, and of the one at its end that no blank line finished.

    As in the WHATWG's HTML standard, "Interpreting an event stream": a line ends in LF, CR or CRLF and in none of the
    other characters that Python's splitlines knows; `event`, `id`, `retry` and comments do not matter here.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    *blocks, rest = text.split("\n\n")
    return [data for block in blocks if (data := _data(block))], _data(rest)


def _data(block: str) -> str:
    lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
    return "\n".join(lines).strip()


#: Texts that are sent whole; some servers repeat them in every chunk.
_LABELS = frozenset({"id", "role", "type"})


class Delta:
    """A message that arrives in pieces. Costs no more than its length, however many they are."""

    __slots__ = ("_fields",)

    def __init__(self) -> None:
        self._fields: dict[str, Any] | None = None

    def add(self, piece: dict[str, Any]) -> None:
        """Add the next piece. Raises RecursionError."""
        self._fields = _add(self._fields, piece)

    def whole(self) -> dict[str, Any] | None:
        """The message as it would have come in one piece; None if nothing came. Raises RecursionError."""
        if self._fields is None:
            return None
        message: dict[str, Any] = mended(_joined(self._fields))
        for call in calls if isinstance(calls := message.get("tool_calls"), list) else []:
            if isinstance(call, dict):
                call.pop("index", None)  # says where a piece belongs; a whole message has none
        return message


class _Text(list[str]):
    """A text in pieces."""


class _Rows:
    """A list in pieces: an entry with an `index` continues the one that has the same."""

    __slots__ = ("entries", "next")

    def __init__(self) -> None:
        self.entries: dict[int, Any] = {}
        self.next = 0

    def add(self, entry: object) -> None:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is not int:
            index = self.next
        self.entries[index] = _add(self.entries.get(index), entry)
        self.next = max(self.next, index + 1)


def _add(whole: Any, piece: object, name: str = "") -> Any:
    """What has come of a value, and its next piece: texts, lists and objects go on, anything else is replaced."""
    if piece is None:
        return whole
    if isinstance(piece, str):
        if name in _LABELS:
            return piece or whole
        if isinstance(whole, _Rows):  # a plain text after a list of parts, as in vLLM's `echo` of such a message
            whole.add({"type": "text", "text": piece})
            return whole
        whole = whole if isinstance(whole, _Text) else _Text()
        whole.append(piece)
    elif isinstance(piece, dict):
        whole = whole if isinstance(whole, dict) else {}
        for key, value in piece.items():
            whole[key] = _add(whole.get(key), value, key)
    elif isinstance(piece, list):
        whole = whole if isinstance(whole, _Rows) else _Rows()
        for entry in piece:
            whole.add(entry)
    else:
        whole = piece
    return whole


def _joined(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, _Rows):
        return [_joined(value.entries[index]) for index in sorted(value.entries)]
    if isinstance(value, dict):
        return {key: _joined(entry) for key, entry in value.items()}
    return value
