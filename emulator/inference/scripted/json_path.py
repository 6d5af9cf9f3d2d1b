"""JSON paths: the part of RFC 9535 that finds values by name, index or wildcard, without filters and slices."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_NAME = r"[A-Za-z_\u0080-\U0010ffff][\w\u0080-\U0010ffff-]*"
_STEP = re.compile(
    rf"""(?:(?P<deep>\.\.)|(?P<dot>\.))?(?:
      (?P<name>{_NAME}|\*)
    | \[\s*(?:
        (?P<index>-?(?:0|[1-9]\d{{0,14}}))
      | (?P<star>\*)
      | '(?P<single>(?:[^'\\]|\\.)*)'
      | "(?P<double>(?:[^"\\]|\\.)*)"
      )\s*\]
    )""",
    re.VERBOSE,
)

_Step = Callable[[Any], Iterable[Any]]


class BadPath(ValueError):
    """A text is no JSON path; the message says where."""


@dataclass(frozen=True, slots=True)
class Path:
    """A path that was read."""

    text: str
    steps: tuple[_Step, ...]

    def find(self, value: Any) -> Iterator[Any]:
        """Every value that the path leads to, in the order of the document."""
        found: Iterable[Any] = (value,)
        for step in self.steps:
            found = [each for one in found for each in step(one)]
        return iter(found)


@lru_cache(maxsize=512)
def parse(text: str) -> Path:
    """Read a path such as `$.steps[0]["the name"]`, `$..id` or `$.items[*]`. Raises BadPath."""
    if not text.startswith("$"):
        raise BadPath(f"{text!r} does not begin with $")
    at, steps = 1, []
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or not _is_step(found):
            raise BadPath(f"{text!r} cannot be read from character {at + 1} on: {text[at : at + 10]!r}")
        steps.append(_step(found))
        at = found.end()
    return Path(text, tuple(steps))


def member(name: str) -> Path:
    """The path to a member of an object, whatever its name."""
    return Path(name, (_named(name),))


def _is_step(found: re.Match[str]) -> bool:
    """A name comes after one dot or two, brackets after none or two."""
    return found["deep"] is not None or (found["name"] is None) == (found["dot"] is None)


def _step(found: re.Match[str]) -> _Step:
    if found["index"] is not None:
        one = _indexed(int(found["index"]))
    elif found["star"] or found["name"] == "*":
        one = _members
    else:
        quoted = found["double"] if found["single"] is None else found["single"]
        one = _named(re.sub(r"\\(.)", r"\1", quoted) if found["name"] is None else found["name"])
    if found["deep"] is None:
        return one
    return lambda value: [each for part in _all(value) for each in one(part)]


def _named(name: str) -> _Step:
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _indexed(index: int) -> _Step:
    return lambda value: (value[index],) if isinstance(value, list) and -len(value) <= index < len(value) else ()


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _all(value: Any) -> Iterator[Any]:
    """The value and everything in it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(reversed(list(_members(one))))
