"""Tables hide nothing."""

from __future__ import annotations

import pytest

from bench.results import Figure, Results
from bench.table import markdown, shown, terminal
from bench.targets import Outcome, Target, evaluate

RATE = Figure("rate", "samples a second", "/s", peer="router")
STORED = Figure("stored", "time of a page", "ms", peer="few", columns=("few", "many"))
TARGETS = [
    Target("rate over the router's", "rate", "ours", 0.5, at_least=True, over=("rate", "router"), unit="×"),
    Target("page", "stored", "many", 20, unit="ms"),
    Target("rate over the gateway's", "rate", "ours", 10, at_least=True, over=("rate", "gateway"), unit="×"),
    Target("something else", "other", "ours", 1),
]
CONTENDERS = ["router", "gateway", "ours", "unasked"]


@pytest.fixture
def results() -> Results:
    found = Results()
    found.add(RATE, "router", 20_000.0)
    found.add(RATE, "ours", 5_000.0)
    found.skip([RATE], "gateway", "gateway is not installed")
    found.add(STORED, "few", 4.0)
    found.add(STORED, "many", 5.0)
    return found


@pytest.fixture
def outcomes(results: Results) -> list[Outcome]:
    return [evaluate(target, results) for target in TARGETS]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0312, "0.031"), (1.234, "1.23"), (54.32, "54.3"), (101_234.0, "101,234"), (-2.5, "-2.50")],
)  # fmt: skip
def test_numbers_have_three_digits_that_matter(value: float, text: str) -> None:
    assert shown(value) == text


def test_the_terminal_shows_values_ratios_bounds_and_misses(results: Results, outcomes: list[Outcome]) -> None:
    lines = terminal([RATE, STORED], CONTENDERS, results, outcomes).splitlines()
    assert lines[:4] == [
        "samples a second (/s, × router)",
        "  router             20,000",
        "  gateway                 –  gateway is not installed",
        "  ours                5,000    0.250×  at least 0.5 × router: MISSED; at least 10 × gateway: not run",
    ]
    assert "  many                 5.00     1.25×  at most 20 ms: met" in lines
    targets = lines[lines.index("Targets") + 1 :]
    assert [line.split()[-1] for line in targets[:2]] == ["MISSED", "met"]
    assert targets[2].endswith("not run: gateway is not installed")
    assert targets[3] == "  and 1 of figures that were not asked for"
    assert "unasked" not in "\n".join(lines)


def test_the_readme_has_a_row_a_target_and_a_row_a_figure(results: Results, outcomes: list[Outcome]) -> None:
    lines = markdown([RATE, STORED], CONTENDERS, results, outcomes).splitlines()
    assert "| rate over the router's | at least 0.5 × | 0.250 × | MISSED |" in lines
    assert "| something else | at most 1 | – | not run: not asked for |" in lines
    rates = lines.index("| Figure | router | ours |")
    assert lines[rates + 2] == "| samples a second (/s, × router) | 20,000 | 5,000 (0.250×) |"
    stored = lines.index("| Figure | few | many |")
    assert lines[stored + 2] == "| time of a page (ms, × few) | 4.00 | 5.00 (1.25×) |"


def test_a_contender_that_failed_says_so(results: Results, outcomes: list[Outcome]) -> None:
    results.fail([RATE], "router", "it died")
    assert "  router                  –  FAILED: it died" in terminal([RATE], CONTENDERS, results, outcomes)
    results.add(STORED, "router", 1.0)
    assert "| failed |" in markdown([RATE, Figure("stored", "page", "ms")], CONTENDERS, results, outcomes)
