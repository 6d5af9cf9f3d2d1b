"""What every rollout here is about: two sums. Imports nothing that the SDK's environment lacks."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

QUESTION = "What is 12 * 7, and what is 84 - 19?"
SUMS = ["12 * 7", "84 - 19"]
ANSWER = "The answer is 65."
#: Two calls of the calculator, and the answer.
TURNS = 3

CALCULATOR: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work out a sum.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}

_SIGNS: dict[str, Callable[[int, int], int]] = {"-": operator.sub, "*": operator.mul}


def calculator(expression: str) -> str:
    """Work out a sum.

    Args:
        expression: Two whole numbers with a sign between them.
    """
    left, sign, right = expression.split()
    return str(_SIGNS[sign](int(left), int(right)))
