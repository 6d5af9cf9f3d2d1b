"""The one skill of the scripted model: it finds arithmetic in a text, and a tool that can work it out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Every repetition is bounded or possessive, so that no text makes the search slow.
# A number does not begin with 0, so that most dates are none.
_GAP = r"[^\S\n]{0,3}"
_NUMBER = r"(?!0\d)(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?"
_OPERAND = rf"(?:[-(]{_GAP}){{0,8}}{_NUMBER}(?:{_GAP}\)){{0,8}}"
_EXPRESSION = re.compile(rf"(?<![\w.]){_OPERAND}(?:{_GAP}(?:\*\*|[-+*/×x÷−]){_GAP}{_OPERAND})++")  # noqa: RUF001

_PLAIN = str.maketrans({"×": "*", "x": "*", "÷": "/", "−": "-", ",": None})  # noqa: RUF001
_LONGEST = 20_000  # characters of a message that are looked through


def expressions(text: str) -> list[str]:
    """The arithmetic expressions in a text, each once, in Python's notation."""
    found = (_balanced(match.group().translate(_PLAIN)) for match in _EXPRESSION.finditer(text[:_LONGEST]))
    return list(dict.fromkeys(found))


def _balanced(expression: str) -> str:
    """The expression without the parentheses of the sentence around it, as in "(so 1 + 1)"."""
    open_, kept = 0, []
    for character in expression:
        open_ += (character == "(") - (character == ")")
        if open_ < 0:
            open_ = 0
        else:
            kept.append(character)
    text = "".join(kept)
    while open_ > 0:
        text, open_ = text.replace("(", "", 1), open_ - 1
    return text.strip()


def expression_parameter(tool: Mapping[str, Any]) -> str | None:
    """The parameter of a calculator that takes the expression: if the tool is called so, and takes just a string."""
    if "calc" not in tool["name"].lower():
        return None
    schema = tool.get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return None
    texts = [name for name, value in properties.items() if isinstance(value, dict) and value.get("type") == "string"]
    if not texts:
        return None
    return "expression" if "expression" in texts else texts[0]
