"""When two requests are the same: equal JSON, however it is spelled, less the fields that are left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

#: A field of a request's body, a key a step; `*` is every entry of a list or object.
FieldPath = tuple[str, ...]


class Question(NamedTuple):
    """What is asked of a model server; equal ones are the same request."""

    method: str
    path: str
    body: str  #: canonical JSON, or NOT_JSON and the bytes


#: What no JSON text begins with.
NOT_JSON = "not JSON: "


def field_path(text: str) -> FieldPath:
    """`messages.*.tool_call_id` as a path. Raises ValueError."""
    path = tuple(text.split("."))
    if not all(path):
        raise ValueError(f"{text!r} names no field; one looks like user, or messages.*.tool_call_id")
    return path


def question(method: str, path: str, body: bytes, ignored: Sequence[FieldPath] = ()) -> Question:
    """The question that a request asks."""
    return Question(method, path, canonical(body, ignored))


def canonical(body: bytes, ignored: Sequence[FieldPath] = ()) -> str:
    """The one spelling of a JSON body without the ignored fields; of any other body, its bytes.

    Keys are sorted, of equal ones the last counts, there is no whitespace, characters outside ASCII are escapes, and
    a number is spelled by its value: 1, 1.0 and 1e0 are the same, as they are for the model server.
    """
    if not body:
        return ""
    try:
        value = json.loads(body, parse_float=_number)
        for path in ignored:
            _remove(value, path)
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return NOT_JSON + body.decode("latin-1")


def _number(spelled: str) -> int | float:
    value = float(spelled)
    return int(value) if value.is_integer() else value


def _remove(value: Any, path: FieldPath) -> None:
    key, *rest = path
    if key == "*":
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    else:
        keys = [key] if isinstance(value, dict) and key in value else ()
    if rest:
        for each in keys:
            _remove(value[each], tuple(rest))
    elif isinstance(value, dict):
        for each in keys:
            del value[each]
    elif isinstance(value, list) and keys:
        value.clear()
