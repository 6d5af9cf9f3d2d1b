"""The numbers of a run's report, worked out anew from the stored bytes, and with no code of the package.

Slow and plain on purpose: pass@k and pass^k by looking at every choice of k rollouts, deviations by their definition.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations

from emulator.store.queries import TurnRecord
from tests.examples.driving import Run


def recomputed(run: Run, *, rows: int, group_size: int) -> dict[str, float]:
    """Every number of the report's `metrics`. Asserts that it names every rollout and trajectory."""
    groups: dict[str, list[float | None]] = {}
    turn_counts, prompts, responses, attempts = [], [], [], 0
    for rollout in run.report["rollouts"]:
        for attempt in rollout["attempts"]:
            assert run.stored[attempt["trajectory_id"]][0].group == str(rollout["row"])
        attempts += len(rollout["attempts"])
        assert rollout["trajectory_id"] == rollout["attempts"][-1]["trajectory_id"]
        trajectory, turns = run.stored[rollout["trajectory_id"]]
        assert trajectory.group is not None
        succeeded = trajectory.completion == "ready" and trajectory.status == "reward-received"
        assert succeeded == (rollout["failure"] is None)
        reward = sum(trajectory.rewards or []) if succeeded else None
        groups.setdefault(trajectory.group, []).append(reward)
        completed = [turn for turn in turns if turn.status == "completed"]
        turn_counts.append(len(completed))
        for prompt, response in map(tokens, completed):
            prompts.append(prompt)
            responses.append(response)
    assert attempts == len(run.stored)  # no trajectory that the report does not account for
    assert {len(group) for group in groups.values()} == {group_size}
    assert len(groups) == rows
    return rewards_of(list(groups.values()), group_size) | {
        "turns/mean": mean(turn_counts),
        "turns/min": min(turn_counts),
        "turns/max": max(turn_counts),
        "tokens/prompt_mean": mean(prompts),
        "tokens/response_mean": mean(responses),
        "tokens/response_std": deviation(responses),
        "tokens/response_min": min(responses),
        "tokens/response_max": max(responses),
    }


def rewards_of(groups: Sequence[Sequence[float | None]], group_size: int) -> dict[str, float]:
    """What is said of rewards; a rollout that failed counts as 0, and not at all in `valid_mean`."""
    counted = [[reward or 0.0 for reward in group] for group in groups]
    every = [reward for group in counted for reward in group]
    valid = [reward for group in groups for reward in group if reward is not None]
    passed = [[reward is not None and reward >= 1 for reward in group] for group in groups]
    found = {
        "reward/mean": mean(every),
        "reward/std": deviation(every),
        "reward/min": min(every),
        "reward/max": max(every),
        "reward/mean_within_groups": mean([mean(group) for group in counted]),
        "reward/std_within_groups": mean([deviation(group) for group in counted]),
        "reward/min_within_groups": mean([min(group) for group in counted]),
        "reward/max_within_groups": mean([max(group) for group in counted]),
        "reward/zero_frac": every.count(0.0) / len(every),
        "reward/succeeded_rollouts": sum(map(sum, passed)),
        "reward/failed_rollouts": len(every) - sum(map(sum, passed)),
        "reward/num_prompts": len(groups),
        "reward/rollouts_per_prompt": group_size,
        "reward/success_threshold": 1.0,
    }
    if valid:
        found["reward/valid_mean"] = mean(valid)
    k = 1
    while k <= group_size:
        choices = [list(combinations(group, k)) for group in passed]
        found[f"reward/pass_at_{k}"] = mean([mean([any(some) for some in group]) for group in choices])
        found[f"reward/pass_power_{k}"] = mean([mean([all(some) for some in group]) for group in choices])
        k *= 2
    return found


def tokens(turn: TurnRecord) -> tuple[int, int]:
    """Prompt and response tokens, as the model's own bytes say."""
    if (turn.content_type or "").startswith("text/event-stream"):
        events = [line[6:] for line in turn.response.splitlines() if line.startswith(b"data: {")]
        (usage,) = (found for event in events if (found := json.loads(event).get("usage")))
    else:
        usage = json.loads(turn.response)["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a whole population."""
    return math.sqrt(mean([(value - mean(values)) ** 2 for value in values]))
