"""What was measured, and what follows from it."""

from __future__ import annotations

from bench.results import Figure, Results

TIME = Figure("time", "time of a sample", "ms", peer="direct")
ADDED = Figure("added", "added to a sample", "ms", added_to="time")


def results(**times: list[float]) -> Results:
    found = Results()
    for contender, values in times.items():
        for value in values:
            found.add(TIME, contender, value)
    return found


def test_the_value_is_the_median_of_the_rounds() -> None:
    assert results(ours=[3.0, 1.0, 50.0]).median("time", "ours") == 3.0


def test_one_failed_round_leaves_no_value_but_the_reason() -> None:
    found = results(ours=[3.0, 1.0])
    found.fail([TIME], "ours", "2 requests got no answer")
    assert found.median("time", "ours") is None
    assert found.reason("time", "ours") == "FAILED: 2 requests got no answer"


def test_a_ratio_is_over_the_peer_and_the_peer_has_none() -> None:
    found = results(ours=[3.0], direct=[2.0])
    assert found.ratio(TIME, "ours") == 1.5
    assert found.ratio(TIME, "direct") is None
    assert results(ours=[3.0]).ratio(TIME, "ours") is None
    assert results(ours=[3.0], direct=[0.0]).ratio(TIME, "ours") is None


def test_what_is_added_is_the_difference_of_each_round() -> None:
    found = results(ours=[3.0, 10.0, 5.0], direct=[1.0, 9.0, 2.0])
    found.subtract_direct([TIME, ADDED])
    assert found.values["added", "ours"] == [2.0, 1.0, 3.0]
    assert found.median("added", "direct") is None


def test_what_is_added_is_not_known_without_the_model_server_direct() -> None:
    found = results(ours=[3.0])
    found.subtract_direct([TIME, ADDED])
    assert found.median("added", "ours") is None
    assert found.reason("added", "ours") == "the model server direct was not measured"


def test_reasons_go_with_what_is_added() -> None:
    found = results(direct=[1.0], broken=[2.0])
    found.skip([TIME], "absent", "absent is not installed")
    found.fail([TIME], "broken", "it died")
    found.subtract_direct([TIME, ADDED])
    assert found.reason("added", "absent") == "absent is not installed"
    assert found.reason("added", "broken") == "FAILED: it died"
    assert found.median("added", "broken") is None
