"""The advantage methods: worked by hand, and against their definitions written out another way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.advantages import METHODS, OF_ONE_GROUP, Group, Scored, advantages


def whole(*rewards: float, tokens: Sequence[int] = (1,)) -> Group:
    """A group whose rollouts have one reward each, and as many turns as there are numbers of tokens."""
    return [Scored([reward], tokens) for reward in rewards]


def only(method: str, group: Group) -> list[float]:
    """The one advantage of each rollout of the one group."""
    (found,) = advantages(method, [group])
    assert all(len(set(turns)) == 1 for turns in found)
    return [turns[0] for turns in found]


def scored() -> st.SearchStrategy[Scored]:
    rewards = st.integers(-8, 8).map(lambda number: number / 4)

    def rollout(tokens: list[int]) -> st.SearchStrategy[Scored]:
        one, many = (st.lists(rewards, min_size=n, max_size=n) for n in (1, len(tokens)))
        return (one | many).map(lambda given: Scored(given, tokens))

    return st.lists(st.integers(1, 9), min_size=1, max_size=4).flatmap(rollout)


batches = st.lists(st.lists(scored(), min_size=1, max_size=5), min_size=1, max_size=4)


def test_the_methods_are_those_of_the_contract() -> None:
    assert list(METHODS) == [
        *("monte_carlo", "group_based", "group_based_per_turn", "rloo", "reinforce_pp", "reinforce_pp_baseline"),
        *("opo", "grpo_passk", "gpg"),
    ]
    with pytest.raises(KeyError):
        advantages("gae", [whole(1)])


def test_monte_carlo_is_what_is_still_to_come() -> None:
    group = [Scored([1, 0, 2], [5, 5, 5]), Scored([4], [1, 1])]
    assert advantages("monte_carlo", [group]) == [[[3, 2, 2], [4, 4]]]


def test_group_based_is_the_reward_normalized_within_its_group() -> None:
    assert only("group_based", whole(1, 0)) == [1, -1]
    assert only("group_based", whole(1, 0, 0, 0, tokens=[3, 4])) == pytest.approx(
        [math.sqrt(3), *[-1 / math.sqrt(3)] * 3]
    )
    assert only("group_based", whole(0.1, 0.1, 0.1)) == [0, 0, 0]
    assert only("group_based", whole(5)) == [0]


def test_group_based_per_turn_normalizes_every_turns_reward_and_sums_from_each_turn_on() -> None:
    # Rewards 0, 2, 2, 4: mean 2, deviation the root of 2.
    root = math.sqrt(2)
    (found,) = advantages("group_based_per_turn", [[Scored([0, 2], [1, 1]), Scored([2, 4], [1, 1])]])
    assert found == [pytest.approx([-root, 0]), pytest.approx([root, root])]


def test_leaving_one_out_compares_with_the_mean_of_the_others() -> None:
    assert only("rloo", whole(1, 0, 0, 0)) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    assert only("rloo", whole(3, 1)) == [2, -2]
    assert only("rloo", whole(3)) == [0]


def test_reinforce_pp_normalizes_over_the_tokens_of_the_batch() -> None:
    # One token with 1, three with 0: mean 1/4, variance 3/16.
    batch = [[Scored([1], [1])], [Scored([0], [3])]]
    assert advantages("reinforce_pp", batch) == [[[pytest.approx(math.sqrt(3))]], [[pytest.approx(-1 / math.sqrt(3))]]]


def test_reinforce_pp_with_baseline_takes_the_groups_mean_off_first() -> None:
    # Less their means: 1, -1, 2, -2, one token each; variance 10/4.
    found = advantages("reinforce_pp_baseline", [whole(2, 0), whole(14, 10)])
    assert [turns[0] for group in found for turns in group] == pytest.approx(
        [v / math.sqrt(2.5) for v in (1, -1, 2, -2)]
    )


@pytest.mark.parametrize("method", [method for method in METHODS if method != "monte_carlo"])
@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("reward", [0.001, 0.1, 0.3, 1 / 3, 0.7])
def test_rewards_that_are_all_alike_are_no_advantage_however_they_are_rounded(
    method: str, size: int, reward: float
) -> None:
    alike = [Scored([reward], [3, 7, length]) for length in range(size)]
    if method == "reinforce_pp":  # its baseline is the batch's, and what is still to come counts for each turn alike
        assert advantages(method, [alike]) == [[[0, 0, 0]] * size]
    else:
        assert advantages(method, [alike, whole(1, 0)])[0] == [[0, 0, 0]] * size


def test_the_optimal_baseline_is_weighted_by_length() -> None:
    group = [Scored([1], [1, 2]), Scored([0], [1])]  # 3 tokens with 1, and 1 with 0: baseline 3/4
    assert advantages("opo", [group]) == [[[0.25, 0.25], [-0.75]]]
    assert advantages("opo", [[Scored([1], [])]]) == [[[]]]


def test_pass_at_k_rewards_only_the_best_by_what_it_is_ahead() -> None:
    assert only("grpo_passk", whole(1, 0.25, 0)) == [0.75, 0, 0]
    assert only("grpo_passk", whole(1, 1, 0)) == [0, 0, 0]
    assert only("grpo_passk", whole(7)) == [0]


def test_gpg_makes_up_for_groups_that_teach_nothing() -> None:
    batch = [whole(1, 0), whole(1, 1), whole(0, 0), whole(3, 1)]  # two of four teach
    assert advantages("gpg", batch) == [[[1], [-1]], [[0], [0]], [[0], [0]], [[2], [-2]]]
    assert advantages("gpg", [whole(1, 1)]) == [[[0], [0]]]


@given(batches)
def test_every_turn_of_every_rollout_has_a_finite_advantage(batch: list[Group]) -> None:
    for method in METHODS:
        found = advantages(method, batch)
        assert [[len(turns) for turns in group] for group in found] == [
            [len(s.tokens) for s in group] for group in batch
        ]
        assert all(math.isfinite(value) for group in found for turns in group for value in turns)


@given(batches)
def test_what_one_group_decides_does_not_depend_on_the_rest_of_the_batch(batch: list[Group]) -> None:
    for method in OF_ONE_GROUP:
        assert advantages(method, batch) == [advantages(method, [group])[0] for group in batch]


@given(st.lists(st.integers(-8, 8), min_size=2, max_size=8))
def test_a_groups_advantages_follow_their_definitions(rewards: list[int]) -> None:
    group = whole(*rewards)
    mean, deviation = statistics.fmean(rewards), statistics.pstdev(rewards)
    assert only("group_based", group) == pytest.approx([(r - mean) / deviation if deviation else 0 for r in rewards])
    others = [rewards[:at] + rewards[at + 1 :] for at in range(len(rewards))]
    assert only("rloo", group) == pytest.approx([r - statistics.fmean(o) for r, o in zip(rewards, others, strict=True)])
    assert only("grpo_passk", group) == [max(0, r - max(o)) for r, o in zip(rewards, others, strict=True)]


@given(batches)
def test_over_the_tokens_of_a_batch_the_mean_is_0_and_the_deviation_1(batch: list[Group]) -> None:
    for method in ("reinforce_pp", "reinforce_pp_baseline"):
        found = advantages(method, batch)
        tokens = [
            value
            for group, values in zip(batch, found, strict=True)
            for rollout, turns in zip(group, values, strict=True)
            for value, count in zip(turns, rollout.tokens, strict=True)
            for _ in range(count)
        ]
        assert statistics.fmean(tokens) == pytest.approx(0, abs=1e-9)
        assert statistics.pstdev(tokens) == pytest.approx(1) or not any(tokens)
