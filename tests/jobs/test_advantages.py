"""Each advantage method in a real job, of groups that are not as groups should be; worked out anew, paper by paper."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, pstdev, pvariance

import pytest

from emulator.job_config.hyperparameters import ADVANTAGE_METHODS
from tests.jobs.agents import UNEQUAL
from tests.jobs.conftest import aws_with, training, trajectories

MEMBERS = 3


@dataclass
class Rolled:
    """A rollout that has a reward, of two turns."""

    group: int
    rewards: list[float]
    tokens: list[int]

    @property
    def total(self) -> float:
        return sum(self.rewards)

    @property
    def a_turn(self) -> list[float]:
        """A reward for the whole is the last turn's."""
        return self.rewards if len(self.rewards) == 2 else [0.0, *self.rewards]


Batch = list[Rolled]


def others(batch: Batch, one: Rolled) -> list[float]:
    return [each.total for each in batch if each.group == one.group and each is not one]


def group(batch: Batch, one: Rolled) -> list[float]:
    return [each.total for each in batch if each.group == one.group]


def to_go(rewards: list[float]) -> list[float]:
    return [sum(rewards[at:]) for at in range(len(rewards))]


def whitened(batch: Batch, values: list[list[float]]) -> list[list[float]]:
    by_token = [
        value
        for one, turns in zip(batch, values, strict=True)
        for value, count in zip(turns, one.tokens, strict=True)
        for _ in range(count)
    ]
    return [[(value - fmean(by_token)) / pstdev(by_token) for value in turns] for turns in values]


def whole(batch: Batch, of: Callable[[Rolled], float]) -> list[list[float]]:
    return [[of(one)] * 2 for one in batch]


def standard(value: float, values: list[float]) -> float:
    return (value - fmean(values)) / pstdev(values) if len(set(values)) > 1 else 0.0


def per_turn(batch: Batch) -> list[list[float]]:
    """arXiv:2402.03300, 4.1.3: each reward normalized by all of the group's, then summed from its turn on."""
    found = []
    for one in batch:
        every = [reward for each in batch if each.group == one.group for reward in each.rewards]
        normal = [standard(reward, every) for reward in one.rewards]
        found.append(to_go(normal if len(normal) == 2 else [0.0, *normal]))
    return found


def weighted(batch: Batch, one: Rolled) -> float:
    """arXiv:2505.23585: the baseline is weighted by length."""
    same = [each for each in batch if each.group == one.group]
    return sum(sum(each.tokens) * each.total for each in same) / sum(sum(each.tokens) for each in same)


def gpg_scale(batch: Batch) -> float:
    """arXiv:2504.02546: B / (B - M)."""
    groups = {one.group: set(group(batch, one)) for one in batch}
    return len(groups) / sum(len(rewards) > 1 for rewards in groups.values())


ANEW: dict[str, Callable[[Batch], list[list[float]]]] = {
    "monte_carlo": lambda batch: [to_go(one.a_turn) for one in batch],
    "group_based": lambda batch: whole(batch, lambda one: standard(one.total, group(batch, one))),
    "group_based_per_turn": per_turn,
    "rloo": lambda batch: whole(batch, lambda one: one.total - fmean(others(batch, one) or [one.total])),
    "reinforce_pp": lambda batch: whitened(batch, [to_go(one.a_turn) for one in batch]),
    "reinforce_pp_baseline": lambda batch: whitened(
        batch, whole(batch, lambda one: one.total - fmean(group(batch, one)))
    ),
    "opo": lambda batch: whole(batch, lambda one: one.total - weighted(batch, one)),
    "grpo_passk": lambda batch: whole(
        batch, lambda one: max(0.0, one.total - max(others(batch, one), default=one.total))
    ),
    "gpg": lambda batch: whole(
        batch, lambda one: gpg_scale(batch) * (one.total - fmean(group(batch, one)))
    ),
}  # fmt: skip


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-9)


def test_every_method_in_a_job_with_groups_that_failed_in_part_or_whole() -> None:
    assert set(ANEW) == set(ADVANTAGE_METHODS)
    with aws_with("unequal_groups") as aws:
        aws.prepare(prompts=len(UNEQUAL))  # one more than a batch takes, as has to be
        arns = {}
        for method in ANEW:
            document = training(
                advantage_method=method, global_batch_size=len(UNEQUAL) - 1, group_size=MEMBERS, max_steps=1,
                rollout_max_retries=0,
            )  # fmt: skip
            arns[method] = aws.create(document, method.replace("_", "-"))
        for method, arn in arns.items():
            name = method.replace("_", "-")
            job = aws.ended(name)
            assert (job["JobStatus"], job["FailureReason"]) == ("Completed", ""), method
            metrics = next(json.loads(line) for line in aws.log(name) if line.startswith("{"))
            assert all(math.isfinite(value) for value in metrics.values())
            found = trajectories(aws, arn)
            batch = [
                Rolled(
                    int(each["trajectory_id"].split("-")[2]),
                    each["rewards"],
                    [turn["usage"]["completion_tokens"] for turn in each["turns"]],
                )
                for each in found
                if each["eligible"]
            ]
            advantages = [fmean(turns) for turns in ANEW[method](batch)]
            told = {key.rpartition("/")[2]: value for key, value in metrics.items() if "/advantage/" in key}
            assert told == {
                "mean": near(fmean(advantages)),
                "std": near(pstdev(advantages)),
                "min": near(min(advantages)),
                "max": near(max(advantages)),
                "n_positive": sum(value > 1e-9 for value in advantages),
                "n_negative": sum(value < -1e-9 for value in advantages),
            }, method
            groups = {one.group: group(batch, one) for one in batch}
            zero = {
                number
                for number in groups
                if all(abs(value) < 1e-9 for one, value in zip(batch, advantages, strict=True) if one.group == number)
            }
            assert metrics["analysis/zero_adv_groups"] == len(zero)
            assert metrics["analysis/zero_adv_zero_reward"] == sum(not any(groups[number]) for number in zero)
            assert metrics["analysis/zero_adv_nonzero_reward"] == sum(any(groups[number]) for number in zero)
            assert metrics["analysis/batch_valid_ratio"] == near(len(batch) / len(found))
            assert metrics["analysis/batch_completion_ratio"] == 1
            assert metrics["analysis/reward_variance_across_groups"] == near(
                pvariance([fmean(rewards) for rewards in groups.values()])
            )
            assert metrics["analysis/mean_group_reward_spread"] == near(
                fmean([max(rewards) - min(rewards) for rewards in groups.values()])
            )
            everyone = [each["rewards"] if each["eligible"] else [0.0] for each in found]
            totals = [sum(rewards) for rewards in everyone]
            assert metrics["rollout/reward/mean"] == near(fmean(totals))
            assert metrics["rollout/reward/valid_mean"] == near(fmean([one.total for one in batch]))
            assert metrics["rollout/reward/std"] == near(pstdev(totals))
            assert metrics["rollout/reward/zero_frac"] == near(sum(total == 0 for total in totals) / len(totals))
            assert job["Output"]["RolloutInfo"] == {"Total": len(found), "Completed": len(found)}
            usage = {name: job["Output"]["BillableTokenUsage"][f"{name}TokenCount"] for name in ("Prefill", "Sample")}
            assert usage == {
                "Prefill": sum(each["usage"]["prompt_tokens"] for each in found),
                "Sample": sum(each["usage"]["completion_tokens"] for each in found),
            }
