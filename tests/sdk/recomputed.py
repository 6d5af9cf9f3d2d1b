"""A job's numbers, worked out anew from what the model answered, and with no code of the package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Rollouts = Sequence[dict[str, Any]]


def mean(numbers: Sequence[float]) -> float:
    """Their sum by their number."""
    return sum(numbers) / len(numbers)


def deviation(numbers: Sequence[float]) -> float:
    """The population's."""
    return math.sqrt(mean([(number - mean(numbers)) ** 2 for number in numbers]))


def part(rollouts: Rollouts, name: str) -> Rollouts:
    """Those of one step, `train-1` or `val-0`."""
    return [each for each in rollouts if each["trajectory_id"].startswith(f"{name}-")]


def sampled(rollouts: Rollouts) -> int:
    """Tokens that the model wrote."""
    return sum(turn["usage"]["completion_tokens"] for each in rollouts for turn in each["turns"])


def read(rollouts: Rollouts) -> int:
    """Tokens that the model read."""
    return sum(turn["usage"]["prompt_tokens"] for each in rollouts for turn in each["turns"])


def trained(rollouts: Rollouts) -> int:
    """Tokens of all sequences: a turn whose tokens begin the next turn's prompt is part of its sequence."""
    count = 0
    for each in rollouts:
        choices = [turn["choices"][0] for turn in each["turns"]]
        whole = [choice["prompt_token_ids"] + choice["token_ids"] for choice in choices]
        for number, tokens in enumerate(whole):
            following = choices[number + 1]["prompt_token_ids"] if number + 1 < len(choices) else []
            if following[: len(tokens)] != tokens:
                count += len(tokens)
    return count


def step(rollouts: Rollouts) -> dict[str, float]:
    """Metrics of a training step that its job must have found, too."""
    rewards = [each["rewards"][0] for each in rollouts]
    turns = [len(each["turns"]) for each in rollouts]
    prompts = [turn["usage"]["prompt_tokens"] for each in rollouts for turn in each["turns"]]
    responses = [turn["usage"]["completion_tokens"] for each in rollouts for turn in each["turns"]]
    total = trained(rollouts)
    return {
        "rollout/reward/mean": mean(rewards),
        "rollout/reward/valid_mean": mean(rewards),
        "rollout/reward/std": deviation(rewards),
        "rollout/reward/min": min(rewards),
        "rollout/reward/max": max(rewards),
        "rollout/reward/zero_frac": rewards.count(0) / len(rewards),
        "rollout/turns/mean": mean(turns),
        "rollout/turns/min": min(turns),
        "rollout/turns/max": max(turns),
        "rollout/tokens/prompt_mean": mean(prompts),
        "rollout/tokens/response_mean": mean(responses),
        "rollout/tokens/response_std": deviation(responses),
        "rollout/tokens/response_min": min(responses),
        "rollout/tokens/response_max": max(responses),
        "training/num_trajectories": len(rollouts),
        "training/total_tokens": total,
        "training/trainable_token_positions": sum(responses),
        "training/trainable_token_ratio": sum(responses) / total,
    }


def usage(steps: Sequence[Rollouts]) -> dict[str, int]:
    """BillableTokenUsage of training steps."""
    return {
        "PrefillTokenCount": sum(map(read, steps)),
        "SampleTokenCount": sum(map(sampled, steps)),
        "TrainTokenCount": sum(map(trained, steps)),
    }
