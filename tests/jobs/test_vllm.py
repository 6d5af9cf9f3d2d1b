"""A job with the Strands example against the real vLLM: 4 steps of 8 prompts, 4 rollouts each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import httpx2
import pytest

from emulator.settings import Settings
from emulator.testing import running_server
from tests.contract.conftest import vllm_settings, wait_until_ready
from tests.examples.agents import ROOT, serving
from tests.jobs.conftest import AWS, ENDED, training

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

STEPS, PROMPTS, GROUP_SIZE = 4, 8, 4
PATIENCE = 600.0


def test_a_job_of_the_strands_example_counts_what_its_rollouts_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    log = tmp_path / "vllm.log"
    choice: dict[str, Any] = {**vllm_settings(), "vllm_log": str(log), "database": str(tmp_path / "trajectories.db")}
    with (
        serving("strands_handler", tmp_path) as agent,
        running_server(Settings(port=0, agents=(f"{agent}/rollout",), mlflow="off", **choice)) as server,
        httpx2.Client(base_url=f"{server.url}/_emulator", timeout=60) as management,
    ):
        aws = AWS(server)
        aws.prepare()
        data = (ROOT / "examples" / "arithmetic.jsonl").read_bytes()
        aws.client("s3").put_object(Bucket="bucket", Key="train.jsonl", Body=data)
        wait_until_ready(management, log)
        arn = aws.create(
            training(
                global_batch_size=PROMPTS,
                group_size=GROUP_SIZE,
                max_steps=STEPS,
                temperature=0.5,
                sampling_max_tokens=64,
                rollout_max_concurrency=16,
                rollout_max_retries=0,  # each rollout is one trajectory
                rollout_timeout=300,
            )
        )
        job = ended(aws)
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        assert job["Output"]["ProgressInfo"]["CurrentStep"] == STEPS
        lines = [json.loads(line) for line in aws.log() if line.startswith("{")]
        metrics = {line["step"]: line for line in lines}
        found = trajectories(management, arn)
    assert len(found) == STEPS * PROMPTS * GROUP_SIZE
    for step in range(1, STEPS + 1):
        of_step = [each for each in found if each["trajectory_id"].startswith(f"train-{step}-")]
        check(metrics[step], of_step)
    rewards = [reward(each) for each in found]
    assert 0 < fmean(rewards) < 1, "the model is right now and then"
    every_turn = [turn for each in found for turn in completed(each)]
    assert job["Output"]["BillableTokenUsage"] == {
        "PrefillTokenCount": sum(turn["usage"]["prompt_tokens"] for turn in every_turn),
        "SampleTokenCount": sum(turn["usage"]["completion_tokens"] for turn in every_turn),
        "TrainTokenCount": sum(metrics[step]["training/total_tokens"] for step in range(1, STEPS + 1)),
    }


def ended(aws: AWS) -> dict[str, Any]:
    """The job when it is over; a small model on a CPU takes minutes."""
    deadline = time.monotonic() + PATIENCE
    while (job := aws.describe())["JobStatus"] not in ENDED:
        assert time.monotonic() < deadline, job
        time.sleep(1)
    return job


def trajectories(management: httpx2.Client, arn: str) -> list[dict[str, Any]]:
    listed = management.get("/trajectories", params={"job": arn, "limit": 500}).json()["trajectories"]
    return [management.get(f"/trajectories/{arn}/{each['trajectory_id']}").json() for each in listed]


def completed(rollout: dict[str, Any]) -> list[dict[str, Any]]:
    return [turn for turn in rollout["turns"] if turn["status"] == "completed"]


def reward(rollout: dict[str, Any]) -> float:
    """That of a rollout that failed is 0."""
    return float(rollout["rewards"][0]) if rollout["eligible"] else 0.0


def check(metrics: dict[str, float], rollouts: list[dict[str, Any]]) -> None:
    """Worked out anew, from the trajectories alone."""
    assert len(rollouts) == PROMPTS * GROUP_SIZE
    groups: dict[str, list[float]] = {}
    for each in rollouts:
        groups.setdefault(each["group"], []).append(reward(each))
    assert [len(group) for group in groups.values()] == [GROUP_SIZE] * PROMPTS
    rewards = [reward(each) for each in rollouts]
    assert metrics["rollout/reward/mean"] == pytest.approx(fmean(rewards))
    assert metrics["rollout/reward/std"] == pytest.approx(pstdev(rewards))
    turns = [completed(each) for each in rollouts]
    assert metrics["rollout/turns/mean"] == pytest.approx(fmean(map(len, turns)))
    responses = [turn["usage"]["completion_tokens"] for each in turns for turn in each]
    assert metrics["rollout/tokens/response_mean"] == pytest.approx(fmean(responses))
    eligible = [each for each in rollouts if each["eligible"]]
    assert metrics["training/num_trajectories"] == len(eligible)
    assert metrics["training/total_tokens"] == sum(
        turn["usage"]["total_tokens"] for each in eligible for turn in completed(each)
    )
