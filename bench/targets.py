"""The targets: what a run is held to, and whether it held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.figures import fixture, growth
from bench.results import Results

#: Why there is no value where nobody wanted one.
NOT_ASKED = "not asked for"

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
            reason = results.reason(*key) or NOT_ASKED
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


#: Columns of the figures on growth.
_FEW, _MANY = growth.COLUMNS[0], growth.COLUMNS[-1]

#: Columns of the figures on the pytest plugin.
_BARE, _BESIDE_CLIENTS = fixture.COLUMNS


def _ratio(
    about: str, figure: str, contender: str, bound: float, over: tuple[str, str], at_least: bool = True
) -> Target:
    return Target(about, figure, contender, bound, at_least, over, "×")


def _at_most(about: str, figure: str, bound: float) -> Target:
    return _ratio(about, figure, _MANY, bound, (figure, _FEW), at_least=False)


#: In the order in which they are shown. Ours is `normal` unless said.
TARGETS = (
    _ratio("samples, 32 connections, over vllm-router's", "rate_32", "normal", 0.45, ("rate_32", "vllm-router")),
    _ratio("samples, 32 connections, over rllm-model-gateway's", "rate_32", "normal", 25, ("rate_32", "rllm")),
    _ratio("samples, 32 connections, over LiteLLM's", "rate_32", "normal", 100, ("rate_32", "litellm")),
    _ratio("samples, 32 connections, full over normal", "rate_32", "full", 0.65, ("rate_32", "normal")),
    Target("added to a sample at 1 connection, median", "added_p50_1", "normal", 0.35, unit="ms"),
    Target("the same, full", "added_p50_1", "full", 0.65, unit="ms"),
    Target("added to a sample at 1,500 a second, median", "added_open_p50_1500", "normal", 0.8, unit="ms"),
    Target("the same, 99th percentile", "added_open_p99_1500", "normal", 4, unit="ms"),
    Target("256 paced streams: share of a core", "paced_cpu", "normal", 55, unit="%"),
    Target("the same: added to the first event, median", "added_first_event", "normal", 0.5, unit="ms"),
    Target("the same: events merged, of 100,000", "merged", "normal", 0),
    Target("2,000 streams open for 60 s: lost", "many_lost", "normal", 0),
    Target("the same: more memory than at rest", "many_more", "normal", 120, unit="MB"),
    Target("the same: a plain sample meanwhile, 99th percentile", "many_p99", "normal", 50, unit="ms"),
    _ratio("bodies of 64 KB: rate over that with 2 KB", "rate_64k", "normal", 0.6, ("rate_32", "normal")),
    Target("40 turns that grow to 8 KB: stored of the raw requests", "rollout_to_8k", "normal", 0.25),
    Target("40 turns that grow by 8 KB each: the same", "rollout_by_8k", "normal", 0.25),
    Target("requests of both not read back byte for byte", "rollout_wrong", "normal", 0),
    _at_most("10⁶ turns stored: median at 1 connection over that with 10³", "stored_p50_1", 1.15),
    _ratio("10⁶ turns stored: peak rate over that with 10³", "stored_rate_32", _MANY, 0.65, ("stored_rate_32", _FEW)),
    Target("10⁶ turns stored: a page of the listing, 99th percentile", "stored_page_p99", _MANY, 20, unit="ms"),
    Target("start to first answer, new database", "start", "normal", 0.5, unit="s"),
    Target("the same, full", "start", "full", 0.5, unit="s"),
    Target("the same, 10⁶ turns stored", "stored_start", _MANY, 0.5, unit="s"),
    Target("memory at rest", "memory", "normal", 80, unit="MB"),
    Target("the first test with job_runtime", "fixture_first", _BARE, 60, unit="ms"),
    Target("the same, where boto3 and openai are imported anyway", "fixture_first", _BESIDE_CLIENTS, 60, unit="ms"),
    Target("each further test with job_runtime", "fixture_each", _BARE, 3, unit="ms"),
    Target("a suite that does not use it", "fixture_foreign", _BARE, 3, unit="ms"),
)
