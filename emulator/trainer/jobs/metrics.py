"""The metrics of a step, under the names that a real job gives them. Pure.

What of them is not documented is marked; standard deviations are the population's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from emulator.advantages import Scored, advantages
from emulator.trainer.jobs.tokens import StepTokens
from emulator.trainer.metrics import spread
from emulator.trainer.report import run_metrics
from emulator.trainer.rollouts import RolloutResult

Metrics = dict[str, float]


def judged_metrics(
    prefix: str,
    results: Sequence[RolloutResult],
    tokens: StepTokens,
    *,
    group_size: int,
    threshold: float,
    ks: Sequence[int],
) -> Metrics:
    """Of a validation or an evaluation: `val/reward/mean`, `eval/reward/pass_at_1`."""
    found = run_metrics(results, group_size=group_size, threshold=threshold, ks=ks)
    found |= logprob_metrics(tokens, results, prompts=int(found["reward/num_prompts"]))
    return {f"{prefix}/{name}": float(value) for name, value in found.items()}


def rollout_metrics(results: Sequence[RolloutResult], tokens: StepTokens, *, group_size: int) -> Metrics:
    """Of the rollouts of a training step: `rollout/reward/mean`, …"""
    found = run_metrics(results, group_size=group_size)
    kept = ("mean", "valid_mean", "std", "min", "max", "zero_frac")
    chosen = {f"reward/{name}": found[f"reward/{name}"] for name in kept if f"reward/{name}" in found}
    chosen |= {name: value for name, value in found.items() if name.startswith(("turns/", "tokens/"))}
    chosen |= logprob_metrics(tokens, results, prompts=int(found["reward/num_prompts"]))
    return {f"rollout/{name}": float(value) for name, value in chosen.items()}


def logprob_metrics(tokens: StepTokens, results: Sequence[RolloutResult], *, prompts: int) -> Metrics:
    """How likely the sampled tokens were; nothing where no answer says it."""
    logprobs = tokens.logprobs
    if not logprobs:
        return {}
    response_tokens = sum(result.response_tokens for result in results)
    zeros = sum(logprob == 0 for logprob in logprobs)
    others = [logprob for logprob in logprobs if logprob != 0]
    found: Metrics = {
        "logprob/zero_count": zeros,
        # OBSERVED: by the tokens of the responses, whether their answers have log probabilities or not.
        "logprob/zero_frac": zeros / response_tokens if response_tokens else 0.0,
        "logprob/zero_per_group": zeros / prompts,
    }
    if others:
        found |= {f"logprob/nz_{name}": value for name, value in asdict(spread(others)).items()}
    return found


def training_metrics(
    results: Sequence[RolloutResult], tokens: StepTokens, *, step: int, epoch: int, group_size: int
) -> Metrics:
    """`training/…`: what would be trained on."""
    valid = sum(result.failure is None for result in results)
    actions, observations = sum(tokens.actions), sum(tokens.observations)
    found: Metrics = {
        "epoch": epoch,
        "global_step": step,
        "num_groups": len(results) / group_size,
        "num_trajectories": valid,
        "total_tokens": tokens.total,
        # ASSUMED: a datum is a sequence, of turns that extend one another; the means are of a datum.
        "num_datums": tokens.sequences,
        "datums_per_trajectory": tokens.sequences / valid if valid else 0.0,
        "trainable_token_positions": actions,
        "nontrainable_token_positions": observations,
    }
    if tokens.sequences:
        found["action_tokens_mean"] = actions / tokens.sequences
        found["obs_tokens_mean"] = observations / tokens.sequences
    if tokens.total:
        found["trainable_token_ratio"] = actions / tokens.total
    return {f"training/{name}": float(value) for name, value in found.items()}


def advantage_metrics(results: Sequence[RolloutResult], *, method: str) -> Metrics:
    """`rollout/advantage/…` and `analysis/…`, of the rollouts that have a reward."""
    groups: dict[int, list[RolloutResult]] = {}
    for result in results:
        if result.failure is None:
            groups.setdefault(result.row, []).append(result)
    scored = [
        [Scored(each.rewards, [turn.response for turn in each.turns]) for each in group] for group in groups.values()
    ]
    # ASSUMED: of a rollout whose turns have advantages of their own, their mean is what is counted.
    by_group = [
        [math.fsum(turns) / len(turns) if turns else 0.0 for turns in group] for group in advantages(method, scored)
    ]
    flat = [advantage for group in by_group for advantage in group]
    rewards = [[each.reward for each in group] for group in scored]
    still = [numbers for numbers, found in zip(rewards, by_group, strict=True) if not any(found)]
    completed = sum(not result.failure or bool(result.turns) for result in results)
    found: Metrics = {
        "analysis/batch_completion_ratio": completed / len(results),
        "analysis/batch_valid_ratio": len(flat) / len(results),
        "analysis/zero_adv_groups": len(still),
        "analysis/zero_adv_nonzero_reward": sum(any(numbers) for numbers in still),
        "analysis/zero_adv_zero_reward": sum(not any(numbers) for numbers in still),
    }
    if flat:
        found |= {f"rollout/advantage/{name}": value for name, value in asdict(spread(flat)).items()}
        found["rollout/advantage/n_positive"] = sum(advantage > 0 for advantage in flat)
        found["rollout/advantage/n_negative"] = sum(advantage < 0 for advantage in flat)
        spreads = [spread(numbers) for numbers in rewards]
        found["analysis/reward_variance_across_groups"] = spread([each.mean for each in spreads]).std ** 2
        found["analysis/mean_group_reward_spread"] = spread([each.max - each.min for each in spreads]).mean
    return {name: float(value) for name, value in found.items()}
