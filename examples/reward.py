"""The reward of the example agents: did the answer name the right number?"""

from __future__ import annotations

import re


def reward(answer: str, expected: str) -> float:
    """1.0 if the last number in the answer is the expected one, else 0.0."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", answer.replace(",", ""))
    return 1.0 if numbers and float(numbers[-1]) == float(expected) else 0.0
