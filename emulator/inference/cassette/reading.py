"""A block of a cassette, read and checked."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import yaml

from emulator.inference.cassette.blocks import EVENT, EVENT_END, SCALARS, STYLES, Recorded
from emulator.inference.cassette.conversations import Conversations
from emulator.inference.cassette.tape import KEPT_HEADERS, Piece, RecordedAnswer

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML was built without libyaml: ten times as slow
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]


class WrongBlock(Exception):
    """A block is no recorded answer. `line` is its line in the block, from 0."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


class _Loader(_SafeLoader):
    """Reads JSON's types and no others: no dates, no yes and no, no 1:30 that is ninety."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012 - as PyYAML declares it


for _tag, _pattern, _first in SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def load(text: str) -> Any:
    """The value of a YAML document. Raises WrongBlock."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - as safe as the SafeLoader that it is
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise WrongBlock(error.problem or "this is not YAML", mark.line if mark else 0) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise WrongBlock(f"this is not YAML: {str(error).splitlines()[0]}", 0) from None


def read_block(text: str, conversations: Conversations) -> Recorded:
    """What a YAML document says. `conversations`: of the blocks before it. Raises WrongBlock."""
    document = load(text)
    try:
        return _recorded(document, conversations)
    except _Wrong as wrong:
        raise WrongBlock(wrong.reason, _line_of(text, wrong.where)) from None


class _Wrong(Exception):
    def __init__(self, reason: str, *where: str | int) -> None:
        super().__init__(reason)
        self.reason, self.where = reason, where


def _recorded(document: object, conversations: Conversations) -> Recorded:
    if not isinstance(document, dict) or document.keys() != {"request", "answer"}:
        raise _Wrong("a block has the keys request and answer")
    asked, answer = document["request"], document["answer"]
    _check_keys(asked, {"method", "path", "trajectory", "turn", "continues", "json", "text", "base64"}, "request")
    method = _get(asked, "method", str, "request", default="POST")
    path = _get(asked, "path", str, "request")
    trajectory = _get(asked, "trajectory", str, "request", default=None)
    turn = _get(asked, "turn", int, "request", default=None)
    _continue(asked, trajectory, turn, conversations)
    body = _read_body(asked, "request", needed=False)
    return Recorded(method, path, body, _read_answer(answer), trajectory, turn)


def _continue(asked: dict[str, Any], trajectory: str | None, turn: int | None, conversations: Conversations) -> None:
    """Put the messages before those that are there, where the request continues an earlier one."""
    value = asked.get("json")
    messages = value.get("messages") if isinstance(value, dict) else None
    earlier = _get(asked, "continues", int, "request", default=None)
    if earlier is not None:
        begun = conversations.of(trajectory, earlier)
        if begun is None or turn is None or earlier >= turn:
            raise _Wrong(f"no turn {earlier} of this trajectory, with messages, is before it", "request", "continues")
        if not isinstance(messages, list):
            raise _Wrong("it continues messages, and has none", "request", "continues")
        messages[:0] = begun


def _read_answer(answer: object) -> RecordedAnswer:
    where = "answer"
    _check_keys(answer, {"status", *KEPT_HEADERS, "after", "style", "json", "text", "base64", "stream"}, where)
    assert isinstance(answer, dict)
    status = _get(answer, "status", int, where)
    if not 200 <= status < 600:
        raise _Wrong(f"status {status} is none that an answer has", where, "status")
    headers = {name: _get(answer, name, str, where) for name in KEPT_HEADERS if name in answer}
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise _Wrong(f"{name} has characters that cannot stand in a header", where, name)
    after = _get(answer, "after", float, where, default=0.0)
    if "stream" not in answer:
        body = _read_body(answer, where, needed=True)
        return RecordedAnswer(status, headers, after, (Piece(0.0, body),) if body else (), is_stream=False)
    pieces = _get(answer, "stream", list, where)
    read = tuple(_read_piece(piece, number) for number, piece in enumerate(pieces))
    return RecordedAnswer(status, headers, after, read, is_stream=True)


def _read_piece(piece: object, number: int) -> Piece:
    where = ("answer", "stream", number)
    _check_keys(piece, {"after", "event", "text", "base64"}, *where)
    assert isinstance(piece, dict)
    after = _get(piece, "after", float, *where, default=0.0)
    if "event" in piece:
        data = EVENT + _get(piece, "event", str, *where).encode() + EVENT_END
        if len(piece.keys() & {"event", "text", "base64"}) != 1:
            raise _Wrong("one of event, text and base64 is enough", *where)
    else:
        data = _read_body(piece, *where, needed=True)
    if not data:
        raise _Wrong("a piece is not empty", *where)
    return Piece(after, data)


def _read_body(holder: Mapping[str, Any], *where: str | int, needed: bool) -> bytes:
    found = [key for key in ("json", "text", "base64") if key in holder]
    if len(found) > 1 or (needed and not found):
        raise _Wrong("there is one body: json, text, base64, or an answer's stream", *where)
    match found:
        case ["json"]:
            style = _get(holder, "style", str, *where, default="compact")
            if style not in STYLES:
                raise _Wrong(f"style is one of {', '.join(STYLES)}", *where, "style")
            try:
                return json.dumps(holder["json"], **STYLES[style]).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise _Wrong(f"json: {error}", *where, "json") from None
        case ["text"]:
            return str(_get(holder, "text", str, *where)).encode()
        case ["base64"]:
            try:
                return b64decode(_get(holder, "base64", str, *where), validate=True)
            except ValueError:
                raise _Wrong("this is not base64", *where, "base64") from None
    return b""


def _check_keys(holder: object, known: set[str], *where: str | int) -> None:
    if not isinstance(holder, dict):
        raise _Wrong(f"{where[0] if len(where) == 1 else 'a piece'} has keys and values", *where)
    for key in holder:
        if key not in known:
            raise _Wrong(f"there is no key {key!r} here", *where, key)


_ANY: Any = object()


def _get(holder: Mapping[str, Any], key: str, kind: type, *where: str | int, default: Any = _ANY) -> Any:
    value = holder.get(key, default)
    if value is _ANY:
        raise _Wrong(f"{key} is missing", *where)
    if value is default or (value is None and default is None):
        return value
    if kind is float and type(value) in {int, float}:
        if not 0 <= value < float("inf"):
            raise _Wrong(f"{key} is a number of seconds", *where, key)
        return float(value)
    if type(value) is not kind:
        names = {str: "a text", int: "a whole number", float: "a number", list: "a list"}
        raise _Wrong(f"{key} is {names[kind]}", *where, key)
    return value


def _line_of(text: str, where: tuple[str | int, ...]) -> int:
    """The line of a value in a document."""
    node = yaml.compose(text, Loader=_Loader)
    line = node.start_mark.line if node is not None else 0
    for step in where:
        if isinstance(node, yaml.MappingNode):
            key, node = next(((key, value) for key, value in node.value if key.value == step), (None, None))
            line = key.start_mark.line if key is not None else line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line
    return line
