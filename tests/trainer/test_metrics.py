"""Metrics of groups: those of a real evaluation job, and whatever else against counting by hand."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.trainer.metrics import RewardMetrics, pass_at_k, pass_power_k, reward_metrics, spread
from emulator.trajectory import MOST_REWARD

#: The rewards behind a real job's eval-results.json: 32 prompts × 2; 5 groups won, 5 lost, 22 divided.
REAL = [[1.0, 1.0]] * 5 + [[0.75, 0.75]] * 5 + [[1.0, 0.75]] * 22


def test_a_real_evaluation_job_comes_out() -> None:
    metrics = reward_metrics(REAL, group_size=2)
    assert (metrics.all.mean, metrics.all.std, metrics.all.min, metrics.all.max) == (0.875, 0.125, 0.75, 1.0)
    assert metrics.pass_at == {1: 0.5, 2: 0.84375}
    assert metrics.pass_power == {1: 0.5, 2: 0.15625}
    within = metrics.within_groups
    assert (within.mean, within.std, within.min, within.max) == (0.875, 0.0859375, 0.7890625, 0.9609375)
    assert (metrics.succeeded_rollouts, metrics.failed_rollouts) == (32, 32)
    assert (metrics.num_prompts, metrics.success_threshold, metrics.zero_frac) == (32, 1.0, 0.0)


def test_of_each_k_up_to_the_group_size_there_is_a_figure() -> None:
    assert list(reward_metrics([[1.0] * 8], group_size=8).pass_at) == [1, 2, 4, 8]
    assert list(reward_metrics([[1.0] * 5], group_size=5, ks=(3, 5, 7)).pass_power) == [3, 5]


def test_a_rollout_that_failed_counts_as_zero_and_never_passes() -> None:
    metrics = reward_metrics([[1.0, None]], group_size=2, threshold=0.0)
    assert (metrics.all.mean, metrics.all.min, metrics.valid_mean, metrics.zero_frac) == (0.5, 0.0, 1.0, 0.5)
    assert (metrics.succeeded_rollouts, metrics.failed_rollouts) == (1, 1)
    assert reward_metrics([[None]], group_size=1).valid_mean is None


def test_a_group_that_was_interrupted_says_nothing_of_more_rollouts_than_it_has() -> None:
    metrics = reward_metrics([[1.0, 0.0], [0.0]], group_size=2)
    assert metrics.pass_at == {1: 0.25, 2: 1.0}


def test_the_deviation_of_equal_rewards_is_nothing() -> None:
    assert spread([0.1] * 7) == spread([0.1])
    assert spread([0.1] * 7).std == 0.0


rewards = st.none() | st.sampled_from([0.0, 0.25, 1.0, 2.0]) | st.floats(-10, 10)


@given(st.lists(rewards, min_size=1, max_size=7), st.integers(1, 7), st.floats(-1, 1.5))
def test_pass_figures_are_those_of_every_choice_of_k_rollouts(
    group: list[float | None], k: int, threshold: float
) -> None:
    passed = [reward is not None and reward >= threshold for reward in group]
    metrics = reward_metrics([group], group_size=7, threshold=threshold, ks=(k,))
    if k > len(group):
        assert not metrics.pass_at
        return
    choices = list(itertools.combinations(passed, k))
    assert metrics.pass_at[k] == pytest.approx(sum(map(any, choices)) / len(choices))
    assert metrics.pass_power[k] == pytest.approx(sum(map(all, choices)) / len(choices))
    assert pass_at_k(len(group), sum(passed), k) == metrics.pass_at[k]
    assert pass_power_k(len(group), sum(passed), k) == metrics.pass_power[k]


@given(st.lists(st.lists(rewards, min_size=1, max_size=5), min_size=1, max_size=6))
def test_the_other_figures_are_those_of_the_statistics_module(groups: list[list[float | None]]) -> None:
    metrics: RewardMetrics = reward_metrics(groups, group_size=5)
    plain = [[reward or 0.0 for reward in group] for group in groups]
    flat = [reward for group in plain for reward in group]
    assert metrics.all.mean == pytest.approx(statistics.fmean(flat))
    assert metrics.all.std == pytest.approx(statistics.pstdev(flat), abs=1e-6)
    figures: dict[str, Callable[[list[float]], float]] = {
        "mean": statistics.fmean,
        "std": statistics.pstdev,
        "min": min,
        "max": max,
    }
    for name, figure in figures.items():
        expected = statistics.fmean(figure(group) for group in plain)
        assert getattr(metrics.within_groups, name) == pytest.approx(expected, abs=1e-6)
    assert metrics.succeeded_rollouts + metrics.failed_rollouts == len(flat)


def test_the_largest_rewards_that_there_can_be_have_figures_too() -> None:
    found = reward_metrics([[MOST_REWARD, -MOST_REWARD], [MOST_REWARD, None]], group_size=2)
    assert found.all.std == pytest.approx(MOST_REWARD * 0.6875**0.5)
    assert found.within_groups.mean == pytest.approx(MOST_REWARD / 4)
