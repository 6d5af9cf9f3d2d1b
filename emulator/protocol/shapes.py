"""Nested shapes of a service model: from JSON to plain values with names as Python has them, and back.

Structures become dicts with keys in snake_case, timestamps microseconds since 1970.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from emulator.protocol.errors import SerializationException
from emulator.protocol.service_model import snake_case
from emulator.protocol.validation import refuse_broken, said_of

Shapes = Mapping[str, Any]

#: Seconds since 1970 at the end of the year 9999, beyond which there are no times.
LAST_TIME = 253_402_300_799

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "boolean": (bool,),
    "timestamp": (int, float),
    "list": (list,),
    "map": (dict,),
    "structure": (dict,),
}

_SURROGATE = re.compile("[\\ud800-\\udfff]")

_NOUNS = {
    "string": "a string",
    "integer": "a whole number",
    "long": "a whole number",
    "boolean": "true or false",
    "timestamp": "a time in seconds since 1970",
    "list": "a list",
    "map": "a JSON object",
    "structure": "a JSON object",
}


def decode_shape(shapes: Shapes, name: str, document: object) -> dict[str, Any]:
    """An operation's input, of the structure `name`; members that are absent are None.

    Raises SerializationException for a wrong type, ValidationException that names every constraint that is broken.
    """
    decoder = _Decoder(shapes)
    value: dict[str, Any] = decoder.decode(name, document, "")
    refuse_broken(decoder.broken)
    return value


def encode_shape(shapes: Shapes, name: str, value: Any) -> Any:
    """A value as JSON has it by the shape `name`; members that are None are left out."""
    shape = shapes[name]
    match shape["type"]:
        case "structure":
            members = ((member, each["shape"], value.get(snake_case(member))) for member, each in _members(shape))
            return {member: encode_shape(shapes, of, given) for member, of, given in members if given is not None}
        case "list":
            return [encode_shape(shapes, shape["member"]["shape"], item) for item in value]
        case "map":
            return {key: encode_shape(shapes, shape["value"]["shape"], item) for key, item in value.items()}
        case "timestamp":
            return value / 1_000_000
    return value


def _members(shape: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(shape["members"].items())


class _Decoder:
    """Decodes one document, and collects which constraints it breaks."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self.broken: list[str] = []

    def decode(self, name: str, value: Any, place: str) -> Any:
        """The value of a shape. Raises SerializationException."""
        shape = self._shapes[name]
        kind = shape["type"]
        if type(value) not in _TYPES[kind]:  # not isinstance: true is no number
            raise SerializationException(f"{place or 'The request body'} must be {_NOUNS[kind]}")
        if isinstance(value, str) and _SURROGATE.search(value):
            raise SerializationException(f"{place} must be Unicode; it holds half of a surrogate pair")
        self.broken += said_of(place, value, _broken(shape, value))
        match kind:
            case "structure":
                required = shape.get("required", ())
                return {
                    snake_case(member): self._member(of["shape"], value.get(member), place, member, member in required)
                    for member, of in _members(shape)
                }
            case "list":
                member = shape["member"]["shape"]
                return [self.decode(member, item, f"{place}.{at}.member") for at, item in enumerate(value, 1)]
            case "map":
                key_shape, value_shape = shape["key"]["shape"], shape["value"]["shape"]
                keys = [self.decode(key_shape, key, f"{place}.key") for key in value]
                return {key: self.decode(value_shape, value[key], f"{place}.{key}") for key in keys}
            case "timestamp":
                return _microseconds(value, place)
        return value

    def _member(self, shape: str, value: Any, place: str, name: str, required: bool) -> Any:
        where = (f"{place}." if place else "") + name[0].lower() + name[1:]
        if value is not None:
            return self.decode(shape, value, where)
        if required:
            self.broken += said_of(where, None, ["Member must not be null"])
        return None


def _broken(shape: Mapping[str, Any], value: Any) -> list[str]:
    broken = []
    measured, what = (len(value), "length") if isinstance(value, str | list | dict) else (value, "value")
    minimum, maximum = shape.get("min"), shape.get("max")
    if minimum is not None and measured < minimum:
        broken.append(f"Member must have {what} greater than or equal to {minimum}")
    if maximum is not None and measured > maximum:
        broken.append(f"Member must have {what} less than or equal to {maximum}")
    if isinstance(value, str):
        if "pattern" in shape and not _pattern(shape["pattern"]).fullmatch(value):
            broken.append(f"Member must satisfy regular expression pattern: {shape['pattern']}")
        if "\0" in value:
            broken.append("Member must not contain the character U+0000")
        if "enum" in shape and value not in shape["enum"]:
            broken.append(f"Member must satisfy enum value set: [{', '.join(shape['enum'])}]")
    return broken


@lru_cache
def _pattern(text: str) -> re.Pattern[str]:
    # Classes of Unicode, which Python's `re` has not: letters, numbers, separators.
    for name, ours in ((r"\p{L}", r"\w"), (r"\p{N}", r"\w"), (r"\p{Z}", r"\s")):
        text = text.replace(name, ours)
    return re.compile(text)


def _microseconds(value: float, place: str) -> int:
    if not math.isfinite(value) or abs(value) > LAST_TIME:
        raise SerializationException(f"{place} must be {_NOUNS['timestamp']}")
    return round(value * 1_000_000)
