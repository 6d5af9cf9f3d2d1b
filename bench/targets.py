"""The targets: what a run is held to, and whether it held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.results import Results

Verdict = Literal["met", "MISSED", "not run"]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound of a figure, or of its ratio to another figure in the same run."""

    about: str
    figure: str
    contender: str
    bound: float
    at_least: bool = False  #: else at most
    over: tuple[str, str] | None = None  #: figure and contender that it is divided by
    unit: str = ""

    @property
    def shown_bound(self) -> str:
        """`at most 4 ms`"""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g}{f' {self.unit}' if self.unit else ''}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A target beside what was measured."""

    target: Target
    value: float | None
    verdict: Verdict
    reason: str = ""  #: why there is no value


def evaluate(target: Target, results: Results) -> Outcome:
    """Hold one target against the results.

    What was not tried is `not run`; what was tried and went wrong is missed.
    """
    keys = [(target.figure, target.contender)] + ([target.over] if target.over else [])
    medians = [results.median(*key) for key in keys]
    for key, median in zip(keys, medians, strict=True):
        if median is None:
            reason = results.reason(*key) or "not asked for"
            # Our own failure is a miss; a peer's is nothing to compare with.
            is_miss = key in results.failed and key == keys[0]
            return Outcome(target, None, "MISSED" if is_miss else "not run", reason)
    value, *over = [median for median in medians if median is not None]
    if over:
        if not over[0]:
            return Outcome(target, None, "not run", "the peer's value is 0")
        value /= over[0]
    met = value >= target.bound if target.at_least else value <= target.bound
    return Outcome(target, value, "met" if met else "MISSED")


def _ratio(
    about: str, figure: str, contender: str, bound: float, over: tuple[str, str], at_least: bool = True
) -> Target:
    return Target(about, figure, contender, bound, at_least, over, "×")


#: In the order in which they are shown. Ours is `normal` unless said.
TARGETS = (
    _ratio("samples, 32 connections, over vllm-router's", "rate_32", "normal", 0.45, ("rate_32", "vllm-router")),
    _ratio("samples, 32 connections, over rllm-model-gateway's", "rate_32", "normal", 25, ("rate_32", "rllm")),
    _ratio("samples, 32 connections, over LiteLLM's", "rate_32", "normal", 100, ("rate_32", "litellm")),
    _ratio("samples, 32 connections, full over normal", "rate_32", "full", 0.65, ("rate_32", "normal")),
    Target("added to a sample at 1 connection, median", "added_p50_1", "normal", 0.35, unit="ms"),
    Target("the same, full", "added_p50_1", "full", 0.65, unit="ms"),
)
