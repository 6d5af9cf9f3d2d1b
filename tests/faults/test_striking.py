"""Which calls a fault strikes."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from emulator.faults import Fault, Faults
from tests.conftest import JOB_ARN


def kinds(faults: Faults, operation: str = "Sample", trajectory: str = "t", job: str = JOB_ARN) -> list[str]:
    """The kinds of faults that a call suffers."""
    return [strike.fault.kind for strike in faults.strike(operation, job, trajectory)]


def in_effect(*faults: Fault) -> Faults:
    made = Faults(faults)
    made.restore()
    return made


def test_without_more_it_strikes_every_call_that_its_kind_fits() -> None:
    faults = in_effect(Fault("cut"))
    for operation in ("Sample", "SampleWithResponseStream", "ChatCompletions", "Completions"):
        assert kinds(faults, operation) == ["cut"]
    assert kinds(faults, "CompleteRollout") == kinds(faults, "UpdateReward") == []


def test_operation_job_and_trajectory_are_names_or_patterns() -> None:
    faults = in_effect(Fault("drop", operation=("Sample", "UpdateReward"), job="*/my-?", trajectory="t-[12]"))
    job = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/my-1"
    assert kinds(faults, "Sample", "t-1", job) == ["drop"]
    assert kinds(faults, "UpdateReward", "t-2", job) == ["drop"]
    assert kinds(faults, "CompleteRollout", "t-1", job) == []
    assert kinds(faults, "Sample", "t-3", job) == []
    assert kinds(faults, "Sample", "t-1", job + "0") == []
    assert kinds(faults, "Sample", "T-1", job) == []


def test_a_name_that_looks_like_a_pattern_is_matched_as_it_is_too() -> None:
    assert kinds(in_effect(Fault("drop", trajectory="row[3]")), trajectory="row[3]") == ["drop"]


def test_the_nth_call_is_counted_by_trajectory_among_the_calls_that_are_meant() -> None:
    faults = in_effect(Fault("drop", operation="Sample", call=2))
    assert kinds(faults, "CompleteRollout", "a") == []
    assert [kinds(faults, "Sample", trajectory) for trajectory in "abaab"] == [[], [], ["drop"], [], ["drop"]]


def test_the_nth_call_may_be_counted_over_all_trajectories() -> None:
    faults = in_effect(Fault("drop", call=(1, 3), counted="all"))
    assert [kinds(faults, trajectory=trajectory) for trajectory in "abcd"] == [["drop"], [], ["drop"], []]


def test_it_strikes_no_more_often_than_times() -> None:
    faults = in_effect(Fault("drop", times=2))
    assert [kinds(faults, trajectory=trajectory) for trajectory in "abc"] == [["drop"], ["drop"], []]
    assert [given.struck for given in faults.given] == [2]


def test_a_call_suffers_the_first_fault_that_strikes_so_that_those_with_times_come_in_order() -> None:
    faults = in_effect(Fault("rate-limit", times=1), Fault("cut", times=1), Fault("model-down"))
    assert [kinds(faults) for _ in range(4)] == [["rate-limit"], ["cut"], ["model-down"], ["model-down"]]


def test_latency_and_slow_events_come_on_top() -> None:
    faults = in_effect(Fault("cut"), Fault("drop"), Fault("latency", seconds=1), Fault("slow", seconds=1))
    assert kinds(faults) == ["cut", "latency", "slow"]


def test_a_share_of_calls_is_the_same_whatever_order_they_come_in() -> None:
    calls = [f"t-{number}" for number in range(200)] * 2
    first, again, other = (in_effect(Fault("drop", share=0.25, seed=seed)) for seed in (1, 1, 2))
    struck = sorted(call for call in calls if kinds(first, trajectory=call))
    shuffled = random.Random(3).sample(calls, len(calls))
    assert sorted(call for call in shuffled if kinds(again, trajectory=call)) == struck
    assert sorted(call for call in calls if kinds(other, trajectory=call)) != struck
    assert 60 < len(struck) < 140


def test_two_faults_of_one_seed_strike_different_calls() -> None:
    faults = in_effect(Fault("drop", share=0.5), Fault("cut", share=0.5))
    struck = [tuple(kinds(faults, trajectory=f"t-{number}")) for number in range(100)]
    assert set(struck) == {("drop",), ("cut",), ()}


def test_a_range_of_seconds_gives_each_call_its_own_and_the_same_again() -> None:
    def seconds() -> list[float]:
        faults = in_effect(Fault("latency", seconds=(1, 3)))
        return [faults.strike("Sample", JOB_ARN, f"t-{number}")[0].seconds("seconds") for number in range(20)]

    found = seconds()
    assert found == seconds()
    assert len(set(found)) == 20
    assert 1 <= min(found) < 1.5
    assert 2.5 < max(found) <= 3


def test_what_is_in_effect_is_told_when_it_changes() -> None:
    told: list[bool] = []
    faults = Faults([Fault("drop")], switch=told.append)
    assert told == []
    faults.restore()
    faults.clear()
    assert told[-2:] == [True, False]
    assert faults.add(Fault("cut")).fault.kind == "cut"
    assert told[-1] is True


def test_restoring_brings_back_the_plan_and_nothing_else() -> None:
    faults = in_effect(Fault("drop", times=1))
    assert kinds(faults) == ["drop"]
    faults.add(Fault("cut"))
    faults.restore()
    assert kinds(faults) == ["drop"]
    assert kinds(faults) == []


def test_calls_of_many_threads_are_each_counted_once() -> None:
    faults = in_effect(Fault("drop", times=500))
    with ThreadPoolExecutor(8) as threads:
        struck = list(threads.map(lambda number: len(kinds(faults, trajectory=f"t-{number % 7}")), range(2000)))
    assert sum(struck) == 500
    assert faults.given[0].calls == 2000
