"""Reading nodes as what they should be; what is wrong is noted, and the rest is read all the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from emulator.inference.scripted import json_path
from emulator.inference.scripted.template import BadTemplate, check, is_template
from emulator.inference.scripted.wrong_script import Problem
from emulator.inference.scripted.yaml_nodes import Node

#: Reads a node that stands at a place such as `rules[0].when`.
Read = Callable[[Node, str], Any]


class Reader:
    """Notes what is wrong. A reading that fails gives something of no use: nobody may use it if there are problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, node: Node, where: str, message: str, line: int | None = None) -> None:
        """Note a problem."""
        self.problems.append(Problem(line or node.line, f"{where}: {message}" if where else message))

    def members(self, node: Node, where: str, known: Mapping[str, Read], what: str) -> dict[str, Any]:
        """The members of a mapping, each read as the table says."""
        if not isinstance(node.value, dict):
            self.wrong(node, where, f"{what} has to be a mapping, not {_kind(node)}")
            return {}
        found = {}
        for name, item in node.value.items():
            place = f"{where}.{name}" if where else name
            if name in known:
                found[name] = known[name](item, place)
            else:
                near = get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
                self.wrong(item, where, f"{what} has no {name!r}; {hint}")
        return found

    def items(self, node: Node, where: str, read: Read, what: str) -> list[Any]:
        """The items of a list that holds at least one."""
        if not isinstance(node.value, list) or not node.value:
            self.wrong(node, where, f"has to be a list of {what}, not {_kind(node)}")
            return []
        return [read(item, f"{where}[{number}]") for number, item in enumerate(node.value)]

    def text(self, node: Node, where: str) -> str:
        """A text; numbers and the like are taken as they are written."""
        if node.text is None or node.value is None:
            self.wrong(node, where, f"has to be a text, not {_kind(node)}")
            return ""
        return node.text

    def template(self, node: Node, where: str) -> str:
        """A text that may be a template."""
        text = self.text(node, where)
        if is_template(text):
            try:
                check(text)
            except BadTemplate as error:
                self.wrong(node, where, str(error), node.text_line + error.line - 1)
        return text

    def number(self, node: Node, where: str) -> float:
        """A number, not negative."""
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            self.wrong(node, where, f"has to be a number that is not negative, not {_kind(node)}")
            return 0.0
        return float(value) if isinstance(value, float) else value

    def whole(self, least: int) -> Read:
        """Reads a whole number."""

        def read(node: Node, where: str) -> int:
            value = node.value
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                self.wrong(node, where, f"has to be a whole number, at least {least}, not {_kind(node)}")
                return least
            return value

        return read

    def boolean(self, node: Node, where: str) -> bool:
        """True or false."""
        if not isinstance(node.value, bool):
            self.wrong(node, where, f"has to be true or false, not {_kind(node)}")
        return bool(node.value)

    def one_of(self, *words: str) -> Read:
        """Reads one of these words."""

        def read(node: Node, where: str) -> str:
            if node.value not in words:
                self.wrong(node, where, f"has to be one of {', '.join(words)}, not {_kind(node)}")
                return words[0]
            return str(node.value)

        return read

    def regex(self, node: Node, where: str) -> re.Pattern[str]:
        """A regular expression."""
        try:
            return re.compile(self.text(node, where))
        except (re.error, OverflowError, RecursionError) as error:
            self.wrong(node, where, f"{node.text!r} is not a regular expression: {error}")
            return re.compile("")

    def glob_or_regex(self, node: Node, where: str) -> str | re.Pattern[str]:
        """A name with wildcards, or `{regex: …}`."""
        if isinstance(node.value, dict):
            found = self.members(node, where, {"regex": self.regex}, "a name")
            if not node.value:
                self.wrong(node, where, "has to be a text or {regex: …}, not an empty mapping")
            return found.get("regex", "")  # type: ignore[no-any-return]
        return self.text(node, where)

    def path(self, text: str, node: Node, where: str) -> None:
        """Check that a text, if it begins with `$`, is a JSON path."""
        if text.startswith("$"):
            try:
                json_path.parse(text)
            except json_path.BadPath as error:
                self.wrong(node, where, f"not a JSON path: {error}")


def _kind(node: Node) -> str:
    match node.value:
        case dict():
            return "a mapping"
        case list():
            return "a list" if node.value else "an empty list"
        case None:
            return "nothing"
        case bool():
            return "true" if node.value else "false"
        case str():
            text = node.value if len(node.value) <= 40 else node.value[:40] + "…"
            return f"the text {text!r}"
        case _:
            return str(node.value)[:40]
