"""The hyperparameters of a job: their names, ranges and defaults, and how they are read.

Source: the SageMaker documentation and the recipes of the SDK.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emulator.job import Category

ADVANTAGE_METHODS = (
    "monte_carlo",
    "group_based",
    "group_based_per_turn",
    "rloo",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "opo",
    "grpo_passk",
    "gpg",
)

#: In ASCII: Python's own functions take other digits, spaces and underscores too.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

#: No number is greater, whatever the limits: floats are whole up to here, and nothing here needs more.
LARGEST = 2**53

#: Rollouts at once, whatever the limits: each takes memory from the start, and with more a server would not answer.
MOST_AT_ONCE = 10_000

#: Most characters that are said of one of them, since a value is repeated.
MOST_SAID = 200

LOSS_FUNCTIONS = ("importance_sampling", "ppo", "cispo")


class InvalidHyperParameter(Exception):
    """A hyperparameter is unknown, or has a value that it cannot have; the message says which."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number. The range is AWS's; `least` and `most` are what makes sense at all, and hold on a laptop too."""

    default: float
    low: float
    high: float
    least: float
    is_whole: bool = True
    allowed: tuple[int, ...] = ()  #: the only values that AWS takes
    most: int = LARGEST

    def read(self, text: str, *, strict: bool) -> float:
        """Raises ValueError with the reason."""
        if not (_WHOLE if self.is_whole else _NUMBER).fullmatch(text):
            raise ValueError(f"{text!r} is not a {'whole ' if self.is_whole else ''}number")
        value = int(text) if self.is_whole else float(text)
        if abs(value) > self.most:
            raise ValueError(f"{text} is beyond {self.most:g}")
        if value < self.least:
            raise ValueError(f"{text} is less than {self.least:g}")
        if strict and self.allowed and value not in self.allowed:
            raise ValueError(f"{text} is none of {', '.join(map(str, self.allowed))}")
        if strict and not self.low <= value <= self.high:
            raise ValueError(f"{text} is not between {self.low:g} and {self.high:g}")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    default: str
    words: tuple[str, ...]

    def read(self, text: str, *, strict: bool) -> str:  # noqa: ARG002
        """Raises ValueError with the reason."""
        if text not in self.words:
            raise ValueError(f"{text!r} is none of {', '.join(self.words)}")
        return text


@dataclass(frozen=True, slots=True)
class Numbers:
    """A list of whole numbers, as JSON in a text."""

    default: tuple[int, ...]

    def read(self, text: str, *, strict: bool) -> tuple[int, ...]:  # noqa: ARG002
        """Raises ValueError with the reason."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, list) or not all(type(value) is int and value > 0 for value in values):
            raise ValueError(f"{text!r} is not a JSON list of whole numbers above 0")
        return tuple(values)


HyperParameter = Number | Choice | Numbers

_ROLLOUT: dict[str, HyperParameter] = {
    "rollout_max_concurrency": Number(96, 32, 96, least=1, most=MOST_AT_ONCE),
    "rollout_timeout": Number(600, 300, 86400, least=0.001, is_whole=False),
    "rollout_max_retries": Number(3, 1, 10, least=0),
    "pass_k_values": Numbers((1, 2, 4, 8, 16, 32)),
    "success_threshold": Number(1.0, -math.inf, math.inf, least=-math.inf, is_whole=False),
}

TRAINING: dict[str, HyperParameter] = {
    "global_batch_size": Number(128, 8, 128, least=1, allowed=(8, 16, 32, 64, 128)),
    "group_size": Number(8, 2, 32, least=1),
    "advantage_method": Choice("group_based", ADVANTAGE_METHODS),
    "loss_fn": Choice("ppo", LOSS_FUNCTIONS),
    "clip_low_threshold": Number(0.8, 0, 1, least=0, is_whole=False),
    "clip_high_threshold": Number(1.2, 1, 10, least=0, is_whole=False),
    "temperature": Number(1.0, 0, 2, least=0, is_whole=False),
    "sampling_top_p": Number(1.0, 0, 1, least=0, is_whole=False),
    "sampling_max_tokens": Number(4096, 512, 8192, least=1),
    "max_epochs": Number(1, 1, 30, least=1),
    "max_steps": Number(50, 1, 1000, least=1),
    "val_every": Number(10, 0, 100, least=0),
    "save_every": Number(0, 0, 100, least=0),
    "lora_rank": Number(32, 16, 64, least=1),
    "lora_alpha": Number(64, 16, 128, least=1),
    "learning_rate": Number(4e-5, 0, 0.01, least=0, is_whole=False),
    "adam_beta1": Number(0.9, 0, 1, least=0, is_whole=False),
    "adam_beta2": Number(0.95, 0, 1, least=0, is_whole=False),
    "adam_eps": Number(1e-8, 0, 1, least=0, is_whole=False),
    "adam_weight_decay": Number(0.0, 0, 1, least=0, is_whole=False),
    "adam_grad_clip_norm": Number(1.0, 0, math.inf, least=0, is_whole=False),
    "max_steps_off_policy": Number(3, 0, 10, least=0),
    **_ROLLOUT,
}

EVALUATION: dict[str, HyperParameter] = {
    "eval_group_size": Number(1, 1, 128, least=1),
    "temperature": Number(0.0, 0, 2, least=0, is_whole=False),
    "sampling_top_p": Number(1.0, 0, 1, least=0, is_whole=False),
    "sampling_max_tokens": Number(4096, 1, 8192, least=1),
    **_ROLLOUT,
}

#: What the SDK's evaluator calls three of them.
EVALUATION_ALIASES = {
    "sampling_temperature": "temperature",
    "top_p": "sampling_top_p",
    "max_tokens": "sampling_max_tokens",
}


def read_hyperparameters(category: Category, given: Mapping[str, str], *, strict: bool) -> dict[str, Any]:
    """Every hyperparameter of the category with its value, given or by default. `strict`: AWS's own ranges hold.

    Raises InvalidHyperParameter that names each that is wrong.
    """
    table = TRAINING if category is Category.TRAINING else EVALUATION
    values: dict[str, Any] = {name: each.default for name, each in table.items()}
    wrong = []
    for name, text in given.items():
        known = EVALUATION_ALIASES.get(name, name) if category is Category.EVALUATION else name
        try:
            values[known] = table[known].read(text, strict=strict)
        except KeyError:
            wrong.append(f"{name}: there is no such hyperparameter; there are {', '.join(table)}")
        except ValueError as error:
            reason = str(error)
            wrong.append(f"{name}: {reason if len(reason) <= MOST_SAID else reason[:MOST_SAID] + '…'}")
    if wrong:
        raise InvalidHyperParameter("; ".join(wrong))
    return values
