"""What a request that is not on the cassette has unlike the nearest one that is."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from emulator.inference.cassette.canonical import NOT_JSON, Question

#: Differences that are shown.
SHOWN = 3
#: Characters of a text that stand before the first one that differs.
LEAD = 20


class Difference(NamedTuple):
    """One field that differs."""

    field: str  #: as `messages[2].content`; "" is the whole body
    asked: object
    recorded: object


#: In place of a value: the field is not there.
ABSENT = object()


def nearest(asked: Question, recorded: Iterable[Question]) -> Question | None:
    """The recorded question of the same path that shares most with this one; of equally near ones, the first."""
    ours = _parts_of(asked.body)  # not kept: there is no end to what may be asked
    best: Question | None = None
    best_rank = (-1, 0, 0)
    for each in recorded:
        if (each.method, each.path) != (asked.method, asked.path):
            continue
        theirs = _recorded_parts(each.body)
        shared, unlike_long = len(ours & theirs), -abs(len(ours) - len(theirs))
        if (shared, unlike_long) < best_rank[:2]:
            continue
        rank = (shared, unlike_long, _common(asked.body, each.body))
        if rank > best_rank:
            best, best_rank = each, rank
    return best


@lru_cache(maxsize=10_000)
def _recorded_parts(body: str) -> frozenset[int]:
    return _parts_of(body)


def _parts_of(body: str) -> frozenset[int]:
    """Hashes of the fields of a body; of its messages, one each."""
    value = _load(body)
    if not isinstance(value, dict):
        return frozenset({hash(body)})
    parts = set()
    for key, entry in value.items():
        if key == "messages" and isinstance(entry, list):
            parts |= {hash((key, place, json.dumps(message))) for place, message in enumerate(entry)}
        else:
            parts.add(hash((key, json.dumps(entry))))
    return frozenset(parts)


def _common(one: str, other: str) -> int:
    """How many characters both begin and end with."""
    length = min(len(one), len(other))
    first = bisect_right(range(length), 0, key=lambda at: one[: at + 1] != other[: at + 1])
    rest = length - first
    return first + bisect_right(range(rest), 0, key=lambda at: one[-at - 1 :] != other[-at - 1 :])


def differences(asked: str, recorded: str) -> list[Difference]:
    """The fields that differ between two canonical bodies."""
    try:
        return list(_compare("", _load(asked), _load(recorded)))
    except RecursionError:  # decoding goes deeper than we can
        return [Difference("", asked, recorded)]


def _load(body: str) -> Any:
    if not body:
        return ABSENT
    return body if body.startswith(NOT_JSON) else json.loads(body)


def _compare(field: str, asked: Any, recorded: Any) -> Iterator[Difference]:
    if isinstance(asked, dict) and isinstance(recorded, dict):
        for key in sorted(asked.keys() | recorded.keys()):
            name = f"{field}.{key}" if field else key
            yield from _compare(name, asked.get(key, ABSENT), recorded.get(key, ABSENT))
    elif isinstance(asked, list) and isinstance(recorded, list):
        for place in range(max(len(asked), len(recorded))):
            ours = asked[place] if place < len(asked) else ABSENT
            theirs = recorded[place] if place < len(recorded) else ABSENT
            yield from _compare(f"{field}[{place}]", ours, theirs)
    elif type(asked) is not type(recorded) or asked != recorded:
        yield Difference(field, asked, recorded)


def describe(found: list[Difference], length: int) -> str:
    """The differences in words, values shortened to about so many characters."""
    shown = [_one(each, length) for each in found[:SHOWN]]
    more = len(found) - SHOWN
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def _one(found: Difference, length: int) -> str:
    asked, recorded = found.asked, found.recorded
    start = 0
    if isinstance(asked, str) and isinstance(recorded, str):
        shorter = min(len(asked), len(recorded))
        start = next((at for at in range(shorter) if asked[at] != recorded[at]), shorter)
        start = 0 if start <= LEAD else start - LEAD
    field = shortened(found.field, 60) if found.field else "the body"
    return f"{field}: asked {_value(asked, start, length)}, recorded {_value(recorded, start, length)}"


def _value(value: object, start: int, length: int) -> str:
    if value is ABSENT:
        return "nothing"
    if isinstance(value, str):
        cut = value[start : start + length]
        before, after = "…" if start else "", "…" if len(value) > start + length else ""
        return before + json.dumps(cut) + after
    return shortened(json.dumps(value), length)


def shortened(text: str, length: int) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= length else text[: length - 1] + "…"
