"""What a run came to, as numbers under a real job's names, and as the JSON report."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from emulator.trainer.journal import result_document
from emulator.trainer.metrics import PASS_KS, reward_metrics, spread
from emulator.trainer.rollouts import FailureText, RolloutResult
from emulator.trainer.runtime import MOST_FINDINGS
from emulator.verdict import KINDS, Finding

FORMAT = "job-runtime-local/rollout-report"
VERSION = 1


def group_rewards(results: Iterable[RolloutResult]) -> list[list[float | None]]:
    """The rewards, a list a row."""
    groups: dict[int, list[float | None]] = {}
    for result in sorted(results, key=lambda each: (each.row, each.member)):
        groups.setdefault(result.row, []).append(result.reward)
    return list(groups.values())


def run_metrics(
    results: Sequence[RolloutResult], *, group_size: int, threshold: float = 1.0, ks: Sequence[int] = PASS_KS
) -> dict[str, float]:
    """The numbers of a run under the names that a real evaluation job gives them, less its `eval/`.

    Nothing of a run without results. `tokens/…` are of turns, `turns/…` of rollouts.
    """
    if not results:
        return {}
    rewards = reward_metrics(group_rewards(results), group_size=group_size, threshold=threshold, ks=ks)
    metrics: dict[str, float] = {f"reward/{name}": value for name, value in asdict(rewards.all).items()}
    if rewards.valid_mean is not None:
        metrics["reward/valid_mean"] = rewards.valid_mean
    metrics |= {f"reward/{name}_within_groups": value for name, value in asdict(rewards.within_groups).items()}
    metrics |= {f"reward/pass_at_{k}": value for k, value in rewards.pass_at.items()}
    metrics |= {f"reward/pass_power_{k}": value for k, value in rewards.pass_power.items()}
    for name in ("zero_frac", "succeeded_rollouts", "failed_rollouts", "num_prompts", "success_threshold"):
        metrics[f"reward/{name}"] = getattr(rewards, name)
    metrics["reward/rollouts_per_prompt"] = group_size
    turns = spread([len(result.turns) for result in results])
    metrics |= {"turns/mean": turns.mean, "turns/min": turns.min, "turns/max": turns.max}
    every_turn = [turn for result in results for turn in result.turns]
    if every_turn:
        metrics["tokens/prompt_mean"] = spread([turn.prompt for turn in every_turn]).mean
        response = spread([turn.response for turn in every_turn])
        metrics |= {f"tokens/response_{name}": value for name, value in asdict(response).items()}
    return metrics


def count_failures(results: Iterable[RolloutResult]) -> list[dict[str, Any]]:
    """The failures by the text that a real job has for them, the most frequent first, each with its reasons."""
    found = [result.failure for result in results if result.failure is not None]
    texts = Counter(failure.text for failure in found)
    return [
        {
            "text": text.value,
            "count": count,
            "reasons": [
                {"reason": reason, "count": times}
                for reason, times in Counter(each.reason for each in found if each.text is text).most_common()
            ],
        }
        for text, count in texts.most_common()
    ]


def report_document(
    results: Sequence[RolloutResult],
    *,
    run: Mapping[str, Any],
    planned: int,
    interrupted: bool,
    times: Mapping[str, str],
    verdict: Mapping[str, Any],
    threshold: float = 1.0,
    ks: Sequence[int] = PASS_KS,
) -> dict[str, Any]:
    """The report: docs/rollout.md describes it."""
    ordered = sorted(results, key=lambda each: (each.row, each.member))
    failed = sum(result.failure is not None for result in ordered)
    return {
        "format": FORMAT,
        "version": VERSION,
        **times,
        "interrupted": interrupted,
        "run": dict(run),
        "counts": {
            "planned": planned,
            "rewarded": len(ordered) - failed,
            "failed": failed,
            "not_run": planned - len(ordered),
            "attempts": sum(len(result.attempts) for result in ordered),
        },
        "tokens": {
            "prompt": sum(result.prompt_tokens for result in ordered),
            "response": sum(result.response_tokens for result in ordered),
        },
        "metrics": run_metrics(ordered, group_size=run["group_size"], threshold=threshold, ks=ks),
        "failures": count_failures(ordered),
        "verdict": _with_given_up(verdict, ordered, run["job_arn"]),
        "rollouts": [result_document(result) for result in ordered],
    }


def _with_given_up(verdict: Mapping[str, Any], results: Iterable[RolloutResult], job_arn: str) -> dict[str, Any]:
    """A verdict, and what it cannot see: trajectories that agents left open, and the trainer has sealed."""
    found = [
        Finding(
            "never-sealed" if attempt.failure.text is FailureText.NO_REWARD else "never-sampled",
            job_arn,
            attempt.trajectory_id,
        )
        for result in results
        for attempt in result.attempts
        if attempt.given_up and attempt.failure is not None
    ]
    counts = Counter(verdict["counts"]) + Counter(finding.kind for finding in found)
    room = max(0, MOST_FINDINGS - len(verdict["findings"]))
    return {
        **verdict,
        "counts": {kind: counts[kind] for kind in KINDS if kind in counts},
        "findings": [*verdict["findings"], *(finding.document() for finding in found[:room])],
        "left_off": verdict["left_off"] + max(0, len(found) - room),
    }


def write_report(path: Path, document: Mapping[str, Any]) -> None:
    """The file appears when it is whole, and on disk. Raises OSError."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
