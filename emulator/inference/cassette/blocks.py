"""One answer of a cassette as people read it: a YAML document.

```yaml
request:
  path: /v1/chat/completions      # and method, where that is not POST
  trajectory: t-1                 # where it is known
  turn: 0
  json: {…}                       # the body: json, text or base64
answer:
  status: 200
  content-type: application/json
  after: 0.412
  json: {…}                       # the body: json, text, base64 or stream
```
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import yaml

from emulator.completion import read_completion
from emulator.inference.cassette.tape import KEPT_HEADERS, Piece, RecordedAnswer

try:
    from yaml import CSafeDumper as _SafeDumper
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML was built without libyaml: ten times as slow
    from yaml import SafeDumper as _SafeDumper  # type: ignore[assignment]
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

#: How model servers write JSON: what is written so is shown as its value, and comes back as the same bytes.
STYLES: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "spaced": {"ensure_ascii": False},
    "indented": {"indent": 2, "ensure_ascii": False},
    "compact ascii": {"separators": (",", ":")},
    "spaced ascii": {},
    "indented ascii": {"indent": 2},
}
DEEPEST = 50  # levels of a JSON value that are shown as levels of YAML
EVENT, EVENT_END = b"data: ", b"\n\n"


class WrongBlock(Exception):
    """A block is no recorded answer. `line` is its line in the block, from 0."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


class Recorded:
    """What a block says."""

    __slots__ = ("answer", "body", "method", "path", "trajectory", "turn")

    def __init__(
        self,
        method: str,
        path: str,
        body: bytes,
        answer: RecordedAnswer,
        trajectory: str | None = None,
        turn: int | None = None,
    ) -> None:
        self.method, self.path, self.body = method, path, body
        self.answer = answer
        self.trajectory, self.turn = trajectory, turn


def write_block(recorded: Recorded) -> str:
    """A recorded answer as a YAML document, without the marks around it."""
    request: dict[str, Any] = {} if recorded.method == "POST" else {"method": recorded.method}
    request["path"] = recorded.path
    if recorded.trajectory is not None:
        request["trajectory"] = recorded.trajectory
    if recorded.turn is not None:
        request["turn"] = recorded.turn
    if recorded.body:
        value = _shown(recorded.body)
        request |= _text(recorded.body) if value is None else {"json": value[0]}
    answer = recorded.answer
    shown: dict[str, Any] = {"status": answer.status, **answer.headers, "after": _seconds(answer.after)}
    shown |= {"stream": [_piece(piece) for piece in answer.pieces]} if answer.is_stream else _body(answer.body)
    written = _dump({"request": request, "answer": shown})
    if answer.is_stream and (said := _said(recorded)):
        written = written.replace("\n  stream:\n", f"\n  # {said}\n  stream:\n", 1)
    return written.removesuffix("...\n")  # which PyYAML adds where the last text ends in line breaks


def _dump(value: object, **options: Any) -> str:
    written: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30, explicit_end=False, **options
    )
    return written


def _said(recorded: Recorded) -> str:
    """What a stream says, put together in one line, for people: a comment."""
    answer = recorded.answer
    parts = []
    for choice in read_completion(recorded.body, answer.body, answer.headers.get("content-type")).choices:
        message = choice.message or {}
        parts += [text for text in (choice.text, message.get("content")) if isinstance(text, str) and text]
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                parts.append(f"{function.get('name')}({function.get('arguments')})")
    return "; ".join(_dump(part, default_style='"').strip() for part in parts)


def _body(body: bytes) -> dict[str, Any]:
    if (shown := _shown(body)) is not None:
        for style, options in STYLES.items():
            if json.dumps(shown[0], **options).encode() == body:
                return {"json": shown[0]} if style == "compact" else {"style": style, "json": shown[0]}
    return _text(body)


def _shown(body: bytes) -> tuple[Any] | None:
    """The value of a JSON object that YAML can show."""
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode()  # no half of a character
    except (ValueError, RecursionError):
        return None
    return (value,) if isinstance(value, dict) and _is_flat(value, DEEPEST) else None


def _is_flat(value: object, levels: int) -> bool:
    if isinstance(value, dict | list):
        entries = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_flat(entry, levels - 1) for entry in entries)
    return True


def _text(data: bytes) -> dict[str, Any]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": b64encode(data).decode()}


class _OneLine(dict[str, Any]):
    """Written in one line."""


def _piece(piece: Piece) -> dict[str, Any]:
    after = _seconds(piece.after)
    data = piece.data
    if data.startswith(EVENT) and data.endswith(EVENT_END) and len(data) >= len(EVENT) + len(EVENT_END):
        said = data[len(EVENT) : -len(EVENT_END)]
        if b"\n" not in said and "text" in (text := _text(said)):
            return _OneLine(after=after, event=text["text"])
    text = _text(data)
    return {"after": after, **text} if "text" in text else _OneLine(after=after, **text)


def _seconds(value: float) -> float:
    return round(value, 4)


class _Dumper(_SafeDumper):
    def ignore_aliases(self, _data: object) -> bool:
        return True  # what stands twice is written twice: a block is read from top to bottom


def _write_text(dumper: Any, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _write_one_line(dumper: Any, entries: _OneLine) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", entries.items(), flow_style=True)


_Dumper.add_representer(str, _write_text)
_Dumper.add_representer(_OneLine, _write_one_line)


class _Loader(_SafeLoader):
    """Reads JSON's types and no others: no dates, no yes and no, no 1:30 that is ninety."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}  # noqa: RUF012 - as PyYAML declares it


def _resolve() -> None:
    import re

    for tag, pattern, first in (
        ("bool", "true|false", "tf"),
        ("null", "null|~|", ["n", "~", ""]),
        ("int", "-?(0|[1-9][0-9]*)", "-0123456789"),
        ("float", r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?|-?\.inf|\.nan", "-0123456789."),
    ):
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})\\Z"), list(first))


_resolve()


def load(text: str) -> Any:
    """The value of a YAML document. Raises WrongBlock."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - as safe as the SafeLoader that it is
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise WrongBlock(error.problem or "this is not YAML", mark.line if mark else 0) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise WrongBlock(f"this is not YAML: {str(error).splitlines()[0]}", 0) from None


def read_block(text: str) -> Recorded:
    """What a YAML document says. Raises WrongBlock."""
    document = load(text)
    try:
        return _recorded(document)
    except _Wrong as wrong:
        raise WrongBlock(wrong.reason, _line_of(text, wrong.where)) from None


class _Wrong(Exception):
    def __init__(self, reason: str, *where: str | int) -> None:
        super().__init__(reason)
        self.reason, self.where = reason, where


def _recorded(document: object) -> Recorded:
    if not isinstance(document, dict) or document.keys() != {"request", "answer"}:
        raise _Wrong("a block has the keys request and answer")
    asked, answer = document["request"], document["answer"]
    _check_keys(asked, {"method", "path", "trajectory", "turn", "json", "text", "base64"}, "request")
    method = _get(asked, "method", str, "request", default="POST")
    path = _get(asked, "path", str, "request")
    trajectory = _get(asked, "trajectory", str, "request", default=None)
    turn = _get(asked, "turn", int, "request", default=None)
    body = _read_body(asked, "request", needed=False)
    return Recorded(method, path, body, _read_answer(answer), trajectory, turn)


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
    if value is default or value is None and default is None:
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
