"""Targets are held against what was measured, and a miss is said."""

from __future__ import annotations

import pytest

from bench.__main__ import FIGURES, MEASURES, STUDIES
from bench.contenders import CONTENDERS
from bench.figures import growth
from bench.results import Figure, Results
from bench.targets import NOT_ASKED, TARGETS, Target, evaluate

RATE = Figure("rate", "samples a second", "/s", peer="router")
AT_LEAST = Target("rate over the router's", "rate", "ours", 0.5, at_least=True, over=("rate", "router"), unit="×")
AT_MOST = Target("rate", "rate", "ours", 100)


def results(**rates: list[float]) -> Results:
    found = Results()
    for contender, values in rates.items():
        for value in values:
            found.add(RATE, contender, value)
    return found


@pytest.mark.parametrize(("ours", "verdict"), [(50.0, "met"), (49.9, "MISSED")])
def test_a_ratio_is_of_the_medians_of_all_rounds(ours: float, verdict: str) -> None:
    outcome = evaluate(AT_LEAST, results(ours=[1.0, ours, 1000.0], router=[100.0, 7.0, 9999.0]))
    assert outcome.value == pytest.approx(ours / 100)
    assert outcome.verdict == verdict


@pytest.mark.parametrize(("ours", "verdict"), [(100.0, "met"), (100.1, "MISSED")])
def test_an_upper_bound_may_be_reached_but_not_passed(ours: float, verdict: str) -> None:
    assert evaluate(AT_MOST, results(ours=[ours])).verdict == verdict


def test_without_the_peer_a_target_is_not_run_and_says_why() -> None:
    found = results(ours=[1.0])
    found.skip([RATE], "router", "router is not installed")
    outcome = evaluate(AT_LEAST, found)
    assert (outcome.verdict, outcome.value, outcome.reason) == ("not run", None, "router is not installed")


def test_a_peer_that_fails_is_nothing_to_compare_with() -> None:
    found = results(ours=[1.0], router=[1.0, 1.0])
    found.fail([RATE], "router", "3 of 4 requests went wrong")
    outcome = evaluate(AT_LEAST, found)
    assert outcome.verdict == "not run"
    assert "3 of 4 requests went wrong" in outcome.reason


def test_what_fails_in_ours_is_missed_whatever_other_rounds_gave() -> None:
    found = results(ours=[1.0, 1.0], router=[1.0])
    found.fail([RATE], "ours", "it died")
    for target in (AT_LEAST, AT_MOST):
        outcome = evaluate(target, found)
        assert (outcome.verdict, outcome.reason) == ("MISSED", "FAILED: it died")


def test_a_figure_that_nobody_asked_for_is_not_run() -> None:
    outcome = evaluate(AT_MOST, Results())
    assert (outcome.verdict, outcome.reason) == ("not run", NOT_ASKED)


def test_every_target_is_about_a_figure_that_is_measured() -> None:
    figures = {figure.name: figure for figure in FIGURES}
    for target in TARGETS:
        for name, column in filter(None, [(target.figure, target.contender), target.over]):
            assert column in (figures[name].columns or CONTENDERS), target.about


def test_every_figure_has_one_name_and_a_peer_among_its_columns() -> None:
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    for figure in FIGURES:
        assert figure.peer is None or figure.peer in (figure.columns or CONTENDERS), figure.name
        assert figure.added_to is None or figure.added_to in {each.name for each in FIGURES}, figure.name
    measured = {figure.name for each in (*MEASURES, *STUDIES) for figure in each.figures}
    assert measured == {figure.name for figure in FIGURES if figure.added_to is None}
    assert growth.SHORT.keys() == {figure.name for figure in growth.FIGURES}
