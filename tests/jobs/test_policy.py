"""A policy update of one's own, in place of none."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from emulator.job_config import JobConfig
from emulator.trainer.jobs.policy import POLICY_UPDATES
from emulator.trainer.jobs.services import JobFailed
from emulator.trainer.rollouts import RolloutResult
from tests.jobs.conftest import aws_with, training


class Learns:
    """Notes what it is given, and cannot go on after a step."""

    note = "Learned by heart"

    def __init__(self, last: int) -> None:
        self.last = last
        self.rewards: dict[int, list[float | None]] = {}

    async def update(self, step: int, results: Sequence[RolloutResult], config: JobConfig) -> dict[str, float]:
        if step > self.last:
            raise JobFailed(f"ClientError: a loss of {config.hyperparameters['loss_fn']} that is no number")
        self.rewards[step] = [result.reward for result in results]
        return {"loss/total": 0.5 * step}


def test_it_gets_the_rollouts_of_each_step_and_is_named_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Learns(last=2)
    monkeypatch.setitem(POLICY_UPDATES, "none", policy)
    with aws_with("good") as aws:
        aws.prepare()
        aws.create(training())
        job = aws.ended()
        assert job["JobStatus"] == "Completed"
        lines = aws.log()
        steps = [json.loads(line) for line in lines if line.startswith("{")]
        package = aws.client("sagemaker").describe_model_package(
            ModelPackageName=job["Output"]["OutputModelPackageArn"]
        )
    assert [(step["step"], step["loss/total"]) for step in steps] == [(1, 0.5), (2, 1.0)]
    assert {step: len(rewards) for step, rewards in policy.rewards.items()} == {1: 4, 2: 4}
    assert "Learned by heart" in lines
    assert "Learned by heart" in package["ModelPackageDescription"]


def test_a_job_fails_with_what_it_says_when_it_cannot_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICY_UPDATES, "none", Learns(last=1))
    with aws_with("good") as aws:
        aws.prepare()
        aws.create(training())
        job = aws.ended()
    assert (job["JobStatus"], job["FailureReason"]) == ("Failed", "ClientError: a loss of ppo that is no number")
    assert job["Output"]["ProgressInfo"]["CurrentStep"] == 1
