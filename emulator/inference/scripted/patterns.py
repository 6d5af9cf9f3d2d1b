"""Strings that match a regular expression, for the common part of the language.

Understood: literals, classes, escapes, groups, alternatives, repetitions, anchors (taken to be at the ends). Not
understood: look-around, back references, inline flags. Whoever asks validates what comes out.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator

#: Writes a part of the pattern, given how many repetitions beyond the least and which of equal alternatives.
_Writer = Callable[[int, int], str]

_LONGEST = 100_000  # characters; a repetition such as {1000000} is not written out
_WORD = string.ascii_lowercase + string.ascii_uppercase + string.digits + "_"
_ANY = string.ascii_letters + string.digits + " -_.:,;/+*=@#!?"
_SETS = {"d": string.digits, "w": _WORD, "s": " \t\n"}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}


class NotUnderstood(Exception):
    """The pattern uses a part of the language that is not known here."""


def matching(pattern: str, least: int = 0) -> Iterator[str]:
    """Different strings meant to match, plainest first; `least` is a length worth trying. Raises NotUnderstood."""
    reader = _Reader(pattern)
    write = reader.alternatives()
    if reader.rest():
        raise NotUnderstood(f"unbalanced parenthesis in {pattern!r}")
    seen = set()
    more = [0, *range(1, 17), *({max(least - 1, 0), least} if least > 16 else ())]
    for extra, pick in [*((extra, 0) for extra in more), *((extra, pick) for pick in range(1, 64) for extra in (0, 1))]:
        text = write(extra, pick)
        if text not in seen:
            seen.add(text)
            yield text


class _Reader:
    """Reads a pattern from left to right into writers."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at = pattern, 0

    def rest(self) -> str:
        return self._pattern[self._at :]

    def _take(self, text: str) -> bool:
        if not self._pattern.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            raise NotUnderstood("the pattern ends too early")
        self._at += 1
        return self._pattern[self._at - 1]

    def _until(self, end: str) -> str:
        stop = self._pattern.find(end, self._at)
        if stop < 0:
            raise NotUnderstood(f"no {end} in the pattern")
        text, self._at = self._pattern[self._at : stop], stop + 1
        return text

    def alternatives(self) -> _Writer:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return lambda extra, pick: branches[pick % len(branches)](extra, pick)

    def _sequence(self) -> _Writer:
        parts: list[_Writer] = []
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return lambda extra, pick: "".join(part(extra, pick) for part in parts)

    def _repeated(self, part: _Writer) -> _Writer:
        least, most = self._bounds()
        if least > _LONGEST:
            raise NotUnderstood(f"a repetition of at least {least}")

        def write(extra: int, pick: int) -> str:
            text, times = part(extra, pick), min(least + extra, most)
            if len(text) * times > _LONGEST:
                raise NotUnderstood("the repetitions multiply")
            return text * times

        return write

    def _bounds(self) -> tuple[int, int]:
        if self._take("*"):
            bounds = (0, _LONGEST)
        elif self._take("+"):
            bounds = (1, _LONGEST)
        elif self._take("?"):
            bounds = (0, 1)
        elif self._take("{"):
            low, comma, high = self._until("}").partition(",")
            try:
                least = int(low or 0)
                bounds = (least, int(high) if high else _LONGEST if comma else least)
            except ValueError:
                raise NotUnderstood("a brace that is no repetition") from None
        else:
            return 1, 1
        _ = self._take("?") or self._take("+")  # lazy and possessive repetitions match the same plain strings
        return bounds

    def _atom(self) -> _Writer:
        character = self._next()
        if character in "^$":
            return _one_of([""])
        if character == "(":
            return self._group()
        if character == "[":
            return _one_of(self._class())
        if character == ".":
            return _one_of(_ANY)
        if character == "\\":
            return _one_of(self._escape())
        return _one_of([character])

    def _group(self) -> _Writer:
        if self._take("?") and not self._take(":"):
            if not self._take("P<"):
                raise NotUnderstood("a group of another kind")
            self._until(">")
        write = self.alternatives()
        if not self._take(")"):
            raise NotUnderstood("an open group")
        return write

    def _escape(self) -> str | list[str]:
        character = self._next()
        if character in _SETS:
            return _SETS[character]
        if character in "DWS":
            return [other for other in _ANY if other not in _SETS[character.lower()]]
        if character in "xu":
            digits = "".join(self._next() for _ in range(2 if character == "x" else 4))
            try:
                return chr(int(digits, 16))
            except ValueError:
                raise NotUnderstood("an escape without a number") from None
        if character in "AZbB":
            return [""]
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            raise NotUnderstood(f"the escape \\{character}")
        return character

    def _class(self) -> list[str]:
        negated = self._take("^")
        found: list[str] = []
        while not found or not self._take("]"):
            character = self._next()
            item = self._escape() if character == "\\" else character
            if len(item) == 1 and self.rest()[:1] == "-" and self.rest()[1:2] not in ("]", ""):
                self._at += 1
                last = self._next()
                last = self._escape()[0] if last == "\\" else last
                found += map(chr, range(ord(item[0]), min(ord(last), ord(item[0]) + 127) + 1))
            else:
                found += item
        kept = [other for other in _ANY if other not in found] if negated else found
        if not kept:
            raise NotUnderstood("a class without a plain character")
        return kept


def _one_of(choices: str | list[str]) -> _Writer:
    return lambda _, pick: choices[pick % len(choices)]
