"""How much better than expected each turn was: the advantage methods of a job, as their papers define them. Pure.

`gamma` is 1 and there is no KL term in the reward, so that what is left of each method is its baseline and its scale.
Standard deviations are the population's, as in the metrics of the real service. Where all are alike, and a deviation is
0, advantages are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Scored:
    """A rollout that has its rewards."""

    rewards: Sequence[float]  #: one for the whole rollout, or one for each turn
    tokens: Sequence[int]  #: how many tokens the model sampled, turn by turn

    @property
    def reward(self) -> float:
        """The whole rollout's."""
        return total_reward(self.rewards)

    @property
    def response_tokens(self) -> int:
        """Of all turns."""
        return sum(self.tokens)


Group = Sequence[Scored]  #: rollouts of one prompt
TurnAdvantages = list[float]  #: of one rollout

#: From a batch's groups to their rollouts' advantages.
Method = Callable[[Sequence[Group]], list[list[TurnAdvantages]]]


def total_reward(rewards: Sequence[float]) -> float:
    """A rollout's reward as one number: what it got in all its turns."""
    # ASSUMED: AWS documents a reward a turn, and nothing on what becomes of them where one number is wanted.
    return math.fsum(rewards)


def advantages(method: str, groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """The advantage of each turn of each rollout of each group of a batch. Raises KeyError for an unknown method."""
    return METHODS[method](groups)


def monte_carlo(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """What is still to come, without a baseline: REINFORCE (Williams 1992, doi:10.1007/BF00992696)."""
    return [[_to_come(each) for each in group] for group in groups]


def group_based(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """(r - mean) / standard deviation within the group: GRPO (Shao et al. 2024, arXiv:2402.03300, section 4.1.2)."""
    return [_spread(group, _normalized([each.reward for each in group])) for group in groups]


def group_based_per_turn(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """GRPO with a reward a turn ("process supervision", arXiv:2402.03300, section 4.1.3).

    Every turn's reward is normalized by all those of the group; a turn's advantage is the sum of those from it on. A
    reward for the whole rollout counts as its last turn's.
    """
    found = []
    for group in groups:
        flat = iter(_normalized([reward for each in group for reward in each.rewards]))
        found.append([_to_come(Scored([next(flat) for _ in each.rewards], each.tokens)) for each in group])
    return found


def rloo(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """r - the mean of the others': leave one out (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740)."""
    found = []
    for group in groups:
        rewards = [each.reward for each in group]
        others, total, differ = len(group) - 1, math.fsum(rewards), _differ(rewards)
        alone = [reward - (total - reward) / others if differ else 0.0 for reward in rewards]
        found.append(_spread(group, alone))
    return found


def reinforce_pp(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """What is still to come, normalized over the batch's tokens: REINFORCE++ (Hu et al. 2025, arXiv:2501.03262)."""
    return _whitened(groups, monte_carlo(groups))


def reinforce_pp_baseline(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """r - the group's mean, normalized over the tokens of the batch: REINFORCE++ with baseline (arXiv:2501.03262)."""
    return _whitened(groups, _less_mean(groups))


def opo(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """r - the mean weighted by length: the optimal reward baseline (Hao et al. 2025, arXiv:2505.23585)."""
    found = []
    for group in groups:
        tokens = sum(each.response_tokens for each in group)
        weighted = math.fsum(each.response_tokens * each.reward for each in group)
        baseline = weighted / tokens if tokens else 0.0
        differ = _differ([each.reward for each in group])
        found.append(_spread(group, [each.reward - baseline if differ else 0.0 for each in group]))
    return found


def grpo_passk(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """The best gets what it is ahead of the second, all others 0: pass@k with k the group's size.

    The leave-one-out estimate of Tang et al. 2025 (arXiv:2503.19595). A group of one has no second: 0.
    """
    found = []
    for group in groups:
        rewards = [each.reward for each in group]
        best, second = (sorted(rewards, reverse=True) + rewards)[:2] if len(rewards) > 1 else (0.0, 0.0)
        ahead = [best - second if reward == best else 0.0 for reward in rewards]
        found.append(_spread(group, ahead))
    return found


def gpg(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    """r - the group's mean, times B / (B - M): group policy gradient (Chu et al. 2025, arXiv:2504.02546).

    M of the batch's B groups have rewards that are all alike, and teach nothing. F_norm is 1.
    """
    teaching = sum(_differ([each.reward for each in group]) for group in groups)
    scale = len(groups) / teaching if teaching else 0.0
    return [[[scale * value for value in turns] for turns in group] for group in _less_mean(groups)]


#: The contract's methods, under the names of its hyperparameter `advantage_method`.
METHODS: dict[str, Method] = {
    "monte_carlo": monte_carlo,
    "group_based": group_based,
    "group_based_per_turn": group_based_per_turn,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
    "opo": opo,
    "grpo_passk": grpo_passk,
    "gpg": gpg,
}

#: Those that a group alone decides, whatever else is in the batch, and its tokens do not matter.
OF_ONE_GROUP = ("monte_carlo", "group_based", "group_based_per_turn", "rloo", "grpo_passk")


def _to_come(rollout: Scored) -> TurnAdvantages:
    """The sum of the rewards from each turn on."""
    turns, rewards = len(rollout.tokens), list(rollout.rewards)
    rewards = [0.0] * (turns - len(rewards)) + rewards  # one for all is known when the last turn is over
    return list(accumulate(reversed(rewards)))[::-1]


def _less_mean(groups: Sequence[Group]) -> list[list[TurnAdvantages]]:
    found = []
    for group in groups:
        rewards = [each.reward for each in group]
        mean = math.fsum(rewards) / len(rewards) if _differ(rewards) else rewards[0]
        found.append(_spread(group, [reward - mean for reward in rewards]))
    return found


def _normalized(values: Sequence[float]) -> list[float]:
    if not _differ(values):
        return [0.0 for _ in values]
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / deviation if deviation else 0.0 for value in values]


def _whitened(groups: Sequence[Group], found: list[list[TurnAdvantages]]) -> list[list[TurnAdvantages]]:
    """Less their mean and by their deviation over all sampled tokens, each of which has its turn's advantage."""
    weighted = [
        (value, weight)
        for group, values in zip(groups, found, strict=True)
        for rollout, turns in zip(group, values, strict=True)
        for value, weight in zip(turns, rollout.tokens, strict=True)
    ]
    tokens = sum(weight for _, weight in weighted)
    if not tokens or len({value for value, weight in weighted if weight}) < 2:
        return [[[0.0 for _ in turns] for turns in group] for group in found]
    mean = math.fsum(value * weight for value, weight in weighted) / tokens
    deviation = math.sqrt(math.fsum(weight * (value - mean) ** 2 for value, weight in weighted) / tokens)
    return [[[(value - mean) / deviation if deviation else 0.0 for value in turns] for turns in g] for g in found]


def _differ(values: Sequence[float]) -> bool:
    """Looked at one by one: rounding may keep a mean from each of its equal values, and a deviation from 0."""
    return len(set(values)) > 1


def _spread(group: Group, values: Sequence[float]) -> list[TurnAdvantages]:
    """The same for all turns of a rollout."""
    return [[value] * len(each.tokens) for each, value in zip(group, values, strict=True)]
