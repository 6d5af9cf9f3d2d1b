"""What the rewards of groups of rollouts say. Pure; checked against the numbers of a real evaluation job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

#: The values of k that a real job reports.
PASS_KS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, standard deviation (the population's), least and greatest of some numbers."""

    mean: float
    std: float
    min: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one number."""
    # Summed without rounding: of equal rewards the deviation is 0, and of a million the mean is right.
    least, greatest = min(values), max(values)
    mean = min(max(math.fsum(values) / len(values), least), greatest)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return Spread(mean, math.sqrt(variance), least, greatest)


def pass_at_k(rollouts: int, succeeded: int, k: int) -> float:
    """How likely one of k rollouts of a group succeeds, where so many of all did: 1 - C(n-c, k)/C(n, k)."""
    return 1 - comb(rollouts - succeeded, k) / comb(rollouts, k)


def pass_power_k(rollouts: int, succeeded: int, k: int) -> float:
    """How likely all of k rollouts of a group succeed: C(c, k)/C(n, k)."""
    return comb(succeeded, k) / comb(rollouts, k)


@dataclass(frozen=True, slots=True)
class RewardMetrics:
    """The rewards of a run. A rollout that failed has none: it counts as 0, but in `valid_mean`; it never succeeds."""

    all: Spread
    valid_mean: float | None  #: of the rollouts that have a reward
    zero_frac: float
    within_groups: Spread  #: means over the groups: of their means, deviations, least, greatest
    succeeded_rollouts: int
    failed_rollouts: int  #: those that did not succeed, as a real evaluation counts them
    num_prompts: int
    success_threshold: float
    pass_at: dict[int, float]
    pass_power: dict[int, float]


def reward_metrics(
    groups: Sequence[Sequence[float | None]], *, group_size: int, threshold: float = 1.0, ks: Sequence[int] = PASS_KS
) -> RewardMetrics:
    """Of groups of rewards, a group a prompt, none of them empty; at least one group.

    Of each k that is not greater than `group_size`. A group of which fewer than k rollouts are there, as the run was
    interrupted, says nothing of that k.
    """
    numbers = [[0.0 if reward is None else reward for reward in group] for group in groups]
    valid = [reward for group in groups for reward in group if reward is not None]
    flat = [reward for group in numbers for reward in group]
    spreads = [spread(group) for group in numbers]
    counts = [(len(group), sum(reward is not None and reward >= threshold for reward in group)) for group in groups]
    succeeded = sum(passed for _, passed in counts)
    pass_at, pass_power = {}, {}
    for k in ks:
        enough = [count for count in counts if count[0] >= k] if k <= group_size else []
        if enough:
            pass_at[k] = _mean([pass_at_k(*count, k) for count in enough])
            pass_power[k] = _mean([pass_power_k(*count, k) for count in enough])
    return RewardMetrics(
        all=spread(flat),
        valid_mean=_mean(valid) if valid else None,
        zero_frac=sum(reward == 0 for reward in flat) / len(flat),
        within_groups=Spread(
            _mean([each.mean for each in spreads]),
            _mean([each.std for each in spreads]),
            _mean([each.min for each in spreads]),
            _mean([each.max for each in spreads]),
        ),
        succeeded_rollouts=succeeded,
        failed_rollouts=len(flat) - succeeded,
        num_prompts=len(groups),
        success_threshold=threshold,
        pass_at=pass_at,
        pass_power=pass_power,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
