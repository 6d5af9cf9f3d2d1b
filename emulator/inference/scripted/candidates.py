"""Plain values that may satisfy a part of a JSON schema, and the joining of two schemas into one."""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import chain, count, islice, zip_longest
from typing import Any

from emulator.inference.scripted.patterns import NotUnderstood, matching

_WORD = "scripted"
_LONGEST = 100_000  # characters of a string that is made up
_MISSING = object()

#: A sample of each format that JSON Schema names.
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "scripted@example.com",
    "idn-email": "scripted@example.com",
    "hostname": "example.com",
    "idn-hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "/scripted",
    "iri": "https://example.com/",
    "iri-reference": "/scripted",
    "uri-template": "https://example.com/{id}",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "json-pointer": "/scripted",
    "relative-json-pointer": "0/scripted",
    "regex": "scripted",
}


def numbered(word: str) -> Iterator[str]:
    """word, word2, word3, …"""
    return chain((word,), (f"{word}{number}" for number in count(2)))


def round_robin(*iterables: Iterable[Any]) -> Iterator[Any]:
    """One from each in turn, as long as any has more."""
    for values in zip_longest(*iterables, fillvalue=_MISSING):
        yield from (value for value in values if value is not _MISSING)


def strings(schema: Mapping[str, Any]) -> Iterator[str]:
    """Strings for pattern, format and lengths."""
    least, most = schema.get("minLength", 0), schema.get("maxLength", _LONGEST)
    if least > _LONGEST:
        return
    if sample := _FORMATS.get(schema.get("format", "")):
        yield sample
        yield sample.ljust(least, "a")
    if "pattern" in schema:
        try:
            yield from matching(schema["pattern"], least)
        except NotUnderstood:
            yield from _FORMATS.values()  # perhaps one of them fits; if none does, the schema is refused
        return  # a string not made for the pattern hardly matches, and may take the matcher for ever
    for word in islice(numbered(_WORD), 100):
        yield word.ljust(least, "a")[:most]
    letters = string.ascii_letters + string.digits
    yield from (letter * length for letter in letters for length in range(least, min(most, least + 1) + 1))


def numbers(schema: Mapping[str, Any], *, whole: bool) -> Iterator[int | float]:
    """Numbers for the bounds and multipleOf: small ones first, then those next to the bounds."""
    lows = [_fraction(schema[word]) for word in ("minimum", "exclusiveMinimum") if _is_number(schema.get(word))]
    highs = [_fraction(schema[word]) for word in ("maximum", "exclusiveMaximum") if _is_number(schema.get(word))]
    step = _fraction(schema["multipleOf"]) if _is_number(schema.get("multipleOf")) else Fraction(1)
    yield from (1, 0)
    if lows:
        start = -(-max(lows) // step)  # the first multiple not below the bound
        yield from (_number((start + index) * step) for index in range(60))
    elif highs:
        start = min(highs) // step
        yield from (_number((start - index) * step) for index in range(60))
    else:
        yield from (_number(index * step) for index in range(1, 60))
    if not whole:
        yield 0.5
        if lows and highs:
            width = min(highs) - max(lows)
            yield from (_number(max(lows) + width * part / 64) for part in (32, *range(65)))
        yield from (float(value) for value in lows + highs)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fraction(value: float) -> Fraction:
    return Fraction(str(value))  # by its decimal digits: 0.1 is meant to be a tenth


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


def merged(one: Any, two: Any) -> Any:
    """A schema for what satisfies both, as far as it can be said in one; where it cannot, `one` has the word.

    An approximation for the search only: what it finds is checked against the schemas as they were.
    """
    if one is False or two is False:
        return False
    if one is True or two is True:
        return one if two is True else two
    both = {**two, **one}
    for word in one.keys() & two.keys():
        if one[word] != two[word]:
            _merge_word(both, word, one[word], two[word])
    return both


def _merge_word(both: dict[str, Any], word: str, one: Any, two: Any) -> None:
    if word in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
        both[word] = max(one, two)
    elif word in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
        both[word] = min(one, two)
    elif word == "required":
        both[word] = [*one, *(name for name in two if name not in one)]
    elif word == "enum":
        both[word] = [value for value in one if value in two]
    elif word == "type":
        both[word] = _common_types(one, two)
    elif word in ("properties", "patternProperties"):
        joined = {name: _both(one[name], two[name]) for name in one.keys() & two.keys()}
        both[word] = {**one, **two, **joined}
    elif word in ("items", "additionalProperties", "contains", "propertyNames"):
        both[word] = _both(one, two)
    elif word == "allOf":
        both[word] = [*one, *two]
    elif word in ("$ref", "anyOf", "oneOf"):
        both["allOf"] = [*both.get("allOf", ()), {word: two}]


def _both(one: Any, two: Any) -> Any:
    return {"allOf": [one, two]}


def _common_types(one: Any, two: Any) -> list[str]:
    ones, twos = ([kind] if isinstance(kind, str) else kind for kind in (one, two))
    found = [kind for kind in ones if kind in twos]
    if "integer" not in found and {"integer", "number"} <= {*ones, *twos}:
        found.append("integer")
    return found
