"""What a rule asks of a request: conditions, each a test and the words that say why it failed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from emulator.inference.scripted.request import MISSING, Request

#: A turn: its number, some of them, or a range.
Turns = int | Collection[int]
#: A text to search for, as a regular expression.
Searched = str | re.Pattern[str]
#: A name: as text, in which `*`, `?` and `[…]` stand for others, or a regular expression for all of it.
Named = str | re.Pattern[str]
#: Values by JSON path or by name: a value that it equals, an expression that a text in it matches, a function that
#: says yes, `...` for any value, or MISSING for none.
Values = Mapping[str, Any]

_SHOWN = 120  # characters of a value in a reason


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that a rule asks for."""

    name: str
    wanted: str
    test: Callable[[Request], object]
    found: Callable[[Request], object]

    def reason(self, request: Request) -> str:
        """Why it failed."""
        found = self.found(request)
        text = repr(found[: _SHOWN + 1] if isinstance(found, str) else found)  # a message may be long
        text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        return f"{self.name}: wanted {self.wanted}, found {text}"


def turn_condition(turns: Turns) -> Condition:
    """The turn is one of these. Raises ValueError."""
    if isinstance(turns, int):
        return Condition("turn", str(turns), lambda request: request.turn == turns, lambda request: request.turn)
    given: object = turns  # of somebody who has no type checker
    if not isinstance(given, Collection) or isinstance(given, str):
        raise ValueError(f"turn: {turns!r} is neither a number nor some of them, as [1, 3] or range(2, 5)")
    shown = _shown_range(turns) if isinstance(turns, range) else ", ".join(map(str, turns))
    return Condition("turn", shown, lambda request: request.turn in turns, lambda request: request.turn)


def _shown_range(turns: range) -> str:
    last = turns[-1] if turns else turns.start
    return f"{turns.start} or later" if last >= 2**31 else f"{turns.start} to {last}"


def text_condition(name: str, searched: Searched) -> Condition:
    """The regular expression finds something in a text of the request. Raises re.error."""
    pattern = re.compile(searched)
    return Condition(
        name,
        f"/{pattern.pattern}/",
        lambda request: (text := getattr(request, name)) is not None and pattern.search(text),
        lambda request: getattr(request, name),
    )


def name_condition(name: str, named: Named) -> Condition:
    """The whole of a name of the request is as named. Raises re.error."""
    pattern = re.compile(fnmatch.translate(named)) if isinstance(named, str) else named
    shown = repr(named) if isinstance(named, str) else f"/{named.pattern}/"
    return Condition(
        name, shown, lambda request: pattern.fullmatch(getattr(request, name)), lambda request: getattr(request, name)
    )


def tools_condition(tools: Collection[str]) -> Condition:
    """All of these tools are offered; none at all, if these are none."""
    wanted = {tools} if isinstance(tools, str) else set(tools)
    if not wanted:
        return Condition("tools", "none", lambda request: not request.tools, lambda request: request.tools)
    shown = ", ".join(sorted(wanted))
    return Condition("tools", shown, lambda request: wanted.issubset(request.tools), lambda request: request.tools)


def value_conditions(name: str, values: Values) -> list[Condition]:
    """Each path of a JSON document of the request leads to such a value. Raises BadPath."""
    return [_value_condition(name, path, wanted) for path, wanted in values.items()]


def _value_condition(name: str, path: str, wanted: Any) -> Condition:
    from emulator.inference.scripted import json_path

    found = (json_path.parse(path) if path.startswith("$") else json_path.member(path)).find
    fits = _predicate(wanted)

    def seen(request: Request) -> Any:
        values = [] if (document := getattr(request, name)) is MISSING else list(found(document))
        return values[0] if len(values) == 1 else values or MISSING

    def test(request: Request) -> bool:
        document = getattr(request, name)
        if wanted is MISSING:
            return document is MISSING or not any(True for _ in found(document))
        return document is not MISSING and any(fits(value) for value in found(document))

    return Condition(f"{name} {path}", _shown(wanted), test, seen)


def _predicate(wanted: Any) -> Callable[[Any], object]:
    if wanted is ...:
        return lambda _: True
    if isinstance(wanted, re.Pattern):
        return lambda value: isinstance(value, str) and wanted.search(value)
    if callable(wanted):
        return wanted  # type: ignore[no-any-return]
    return lambda value: equal(value, wanted)


def _shown(wanted: Any) -> str:
    if wanted is ...:
        return "a value"
    if isinstance(wanted, re.Pattern):
        return f"/{wanted.pattern}/"
    if wanted is MISSING:
        return "nothing"
    return getattr(wanted, "__name__", repr(wanted)) if callable(wanted) else repr(wanted)


def equal(one: Any, two: Any) -> bool:
    """Equal as JSON has it: true is not 1."""
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, dict) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(equal(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return bool(one == two)
