"""A recorded answer on its way into a cassette."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any

import yaml

from emulator.completion import read_completion
from emulator.inference.cassette.blocks import EVENT, EVENT_END, SCALARS, STYLES, Recorded
from emulator.inference.cassette.conversations import Conversations
from emulator.inference.cassette.tape import Piece

try:
    from yaml import CSafeDumper as _SafeDumper
except ImportError:  # PyYAML was built without libyaml: ten times as slow
    from yaml import SafeDumper as _SafeDumper  # type: ignore[assignment]

DEEPEST = 50  # levels of a JSON value that are shown as levels of YAML


def write_block(recorded: Recorded, conversations: Conversations) -> str:
    """A recorded answer as a YAML document, without the marks around it. `conversations`: of the blocks before it."""
    request: dict[str, Any] = {} if recorded.method == "POST" else {"method": recorded.method}
    request["path"] = recorded.path
    if recorded.trajectory is not None:
        request["trajectory"] = recorded.trajectory
    if recorded.turn is not None:
        request["turn"] = recorded.turn
    if recorded.body:
        request |= _asked(recorded, conversations)
    answer = recorded.answer
    shown: dict[str, Any] = {"status": answer.status, **answer.headers, "after": _seconds(answer.after)}
    shown |= {"stream": [_piece(piece) for piece in answer.pieces]} if answer.is_stream else _body(answer.body)
    written = _dump({"request": request, "answer": shown})
    if answer.is_stream and (said := _said(recorded)):
        written = written.replace("\n  stream:\n", f"\n  # {said}\n  stream:\n", 1)
    if written.endswith("\n...\n"):  # which PyYAML adds where the last text ends in line breaks
        written = written[:-4]
    return written


def _asked(recorded: Recorded, conversations: Conversations) -> dict[str, Any]:
    shown = _shown(recorded.body)
    if shown is None:
        return _text(recorded.body)
    value = shown[0]
    messages = value.get("messages")
    if not isinstance(messages, list):
        return {"json": value}
    begun = conversations.begun_by(recorded.trajectory, recorded.turn, messages)
    if begun is None:
        return {"json": value}
    turn, count = begun
    return {"continues": turn, "json": {**value, "messages": messages[count:]}}


def _dump(value: object) -> str:
    written: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 30)
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
    return "; ".join(_dump(_Quoted(part)).strip() for part in parts)


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


class _Quoted(str):
    """Written in one line, with escapes where it has others."""

    __slots__ = ()


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


def _write_list(dumper: Any, entries: list[Any]) -> Any:
    are_numbers = all(isinstance(entry, int | float) for entry in entries)  # token ids, say
    return dumper.represent_sequence("tag:yaml.org,2002:seq", entries, flow_style=are_numbers)


def _write_one_line(dumper: Any, entries: _OneLine) -> Any:
    return dumper.represent_mapping("tag:yaml.org,2002:map", entries.items(), flow_style=True)


for _tag, _pattern, _first in SCALARS:  # a text that would be read as one of these is quoted
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))
_Dumper.add_representer(str, _write_text)


def _write_quoted(dumper: Any, text: _Quoted) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')


_Dumper.add_representer(_Quoted, _write_quoted)
_Dumper.add_representer(list, _write_list)
_Dumper.add_representer(_OneLine, _write_one_line)
