"""Jobs are really done, and end as the contract says."""

from __future__ import annotations

import json
from itertools import combinations
from statistics import fmean, pstdev
from typing import Any

import pytest

from tests.job_config import GROUP
from tests.jobs import agents
from tests.jobs.conftest import AWS, aws_with, evaluation, training, trajectories


def step_metrics(aws: AWS) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in aws.log() if line.startswith("{")]
    return {line.pop("step"): line for line in lines}


def test_a_training_job_rolls_out_its_steps_and_counts_what_came_of_them(kept: dict[str, Any]) -> None:
    with aws_with("good", **kept) as aws:
        aws.prepare()
        arn = aws.create(training(validation=True, save_every=1, val_every=1))
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        assert [each["Status"] for each in job["SecondaryStatusTransitions"]] == [
            "Starting", "Downloading", "Pending", "Training", "Uploading", "Completed",
        ]  # fmt: skip
        found = trajectories(aws, arn)
        parts: dict[str, list[dict[str, Any]]] = {}
        for each in found:
            parts.setdefault("-".join(each["trajectory_id"].split("-")[:2]), []).append(each)
        # 5 prompts in batches of 2: two steps of 2 x 2; validations of 5 x 2 at step 0, 1 and 2.
        assert {part: len(each) for part, each in parts.items()} == {
            "val-0": 10, "train-1": 4, "val-1": 10, "train-2": 4, "val-2": 10,
        }  # fmt: skip
        assert all(each["eligible"] and len(each["turns"]) == 2 for each in found)
        metrics = step_metrics(aws)
        assert set(metrics) == {0, 1, 2}
        assert set(metrics[0]) == names_of("val") | {"timing_s/eval"}
        for step in (1, 2):
            assert set(metrics[step]) == names_of("val") | TRAINING_NAMES
            check_step(metrics[step], parts[f"train-{step}"])
            check_validation(metrics[step], parts[f"val-{step}"])
        assert job["Output"]["ProgressInfo"] == {"BatchSize": 2, "CurrentStep": 2, "MaxSteps": 2, "StepsPerEpoch": 2}
        trained = [each for step in (1, 2) for each in parts[f"train-{step}"]]
        assert job["Output"]["BillableTokenUsage"] == {
            "PrefillTokenCount": sum(each["usage"]["prompt_tokens"] for each in trained),
            "SampleTokenCount": sum(each["usage"]["completion_tokens"] for each in trained),
            "TrainTokenCount": sum(metrics[step]["training/total_tokens"] for step in (1, 2)),
        }
        check_outputs(aws, job, found)


def names_of(prefix: str) -> set[str]:
    """What the contract has of a validation, of groups of two."""
    reward = "mean valid_mean std min max zero_frac rollouts_per_prompt num_prompts succeeded_rollouts failed_rollouts "
    reward += "success_threshold pass_at_1 pass_at_2 pass_power_1 pass_power_2 "
    reward += "min_within_groups mean_within_groups max_within_groups std_within_groups"
    return {f"{prefix}/reward/{name}" for name in reward.split()} | generated_names(prefix)


def generated_names(prefix: str) -> set[str]:
    parts = {
        "turns": "mean min max",
        "tokens": "prompt_mean response_mean response_std response_min response_max",
        "logprob": "zero_count zero_frac zero_per_group nz_mean nz_std nz_min nz_max",
    }
    return {f"{prefix}/{part}/{name}" for part, names in parts.items() for name in names.split()}


#: What the contract has of a step with a checkpoint, less what only an update of the policy could tell.
TRAINING_NAMES = generated_names("rollout") | {
    f"{part}/{name}"
    for part, names in {
        "training": "epoch global_step num_groups num_trajectories total_tokens num_datums datums_per_trajectory "
        "action_tokens_mean obs_tokens_mean trainable_token_positions nontrainable_token_positions "
        "trainable_token_ratio",
        "timing_s": "step training save_checkpoint eval",
        "rollout/reward": "mean valid_mean std min max zero_frac",
        "rollout/advantage": "mean std min max n_positive n_negative",
        "analysis": "batch_completion_ratio batch_valid_ratio zero_adv_groups zero_adv_nonzero_reward "
        "zero_adv_zero_reward reward_variance_across_groups mean_group_reward_spread",
    }.items()
    for name in names.split()
}


def check_step(metrics: dict[str, float], rollouts: list[dict[str, Any]]) -> None:
    """Worked out anew, from the trajectories alone."""
    rewards = [each["rewards"][0] for each in rollouts]
    assert metrics["rollout/reward/mean"] == fmean(rewards)
    assert metrics["rollout/reward/std"] == pytest.approx(pstdev(rewards))
    assert metrics["rollout/turns/mean"] == 2
    responses = [turn["usage"]["completion_tokens"] for each in rollouts for turn in each["turns"]]
    assert metrics["rollout/tokens/response_mean"] == pytest.approx(fmean(responses))
    assert metrics["rollout/tokens/response_std"] == pytest.approx(pstdev(responses))
    logprobs = [
        entry["logprob"] for each in rollouts for turn in each["turns"] for entry in turn["choices"][0]["logprobs"]
    ]
    assert metrics["rollout/logprob/nz_mean"] == pytest.approx(fmean(logprobs))
    groups: dict[str, list[float]] = {}
    for each in rollouts:
        groups.setdefault(each["group"], []).append(each["rewards"][0])
    assert sorted(map(len, groups.values())) == [2, 2]
    advantages = [
        (reward - fmean(group)) / pstdev(group) for group in groups.values() for reward in group if pstdev(group)
    ]
    assert metrics["rollout/advantage/n_positive"] == sum(each > 0 for each in advantages)
    assert metrics["rollout/advantage/max"] == pytest.approx(max(advantages))
    assert metrics["analysis/zero_adv_groups"] == sum(not pstdev(group) for group in groups.values())
    assert metrics["training/num_trajectories"] == metrics["training/num_datums"] == 4  # the turns are one conversation
    whole = [sum(each["turns"][-1]["usage"][of] for of in ("prompt_tokens", "completion_tokens")) for each in rollouts]
    assert metrics["training/total_tokens"] == sum(whole)
    assert metrics["training/trainable_token_positions"] == sum(responses)
    assert metrics["training/nontrainable_token_positions"] == sum(whole) - sum(responses)
    assert metrics["training/trainable_token_ratio"] == pytest.approx(sum(responses) / sum(whole))
    assert metrics["training/action_tokens_mean"] == pytest.approx(sum(responses) / 4)
    assert metrics["training/obs_tokens_mean"] == pytest.approx((sum(whole) - sum(responses)) / 4)
    prompts = [turn["usage"]["prompt_tokens"] for each in rollouts for turn in each["turns"]]
    assert metrics["rollout/tokens/prompt_mean"] == pytest.approx(fmean(prompts))
    assert metrics["rollout/logprob/nz_std"] == pytest.approx(pstdev(logprobs))
    assert (metrics["rollout/logprob/zero_count"], metrics["training/num_groups"]) == (0, 2)


def check_validation(metrics: dict[str, float], rollouts: list[dict[str, Any]]) -> None:
    groups: dict[str, list[float]] = {}
    for each in rollouts:
        groups.setdefault(each["group"], []).append(each["rewards"][0])
    for k in (1, 2):
        at = [any(reward >= 1 for reward in few) for group in groups.values() for few in combinations(group, k)]
        power = [all(reward >= 1 for reward in few) for group in groups.values() for few in combinations(group, k)]
        assert metrics[f"val/reward/pass_at_{k}"] == pytest.approx(fmean(at))
        assert metrics[f"val/reward/pass_power_{k}"] == pytest.approx(fmean(power))
    assert metrics["val/reward/num_prompts"] == 5
    within = {
        "mean": [fmean(group) for group in groups.values()],
        "min": [min(group) for group in groups.values()],
        "max": [max(group) for group in groups.values()],
        "std": [pstdev(group) for group in groups.values()],
    }
    for name, numbers in within.items():
        assert metrics[f"val/reward/{name}_within_groups"] == pytest.approx(fmean(numbers))
    rewards = [reward for group in groups.values() for reward in group]
    assert metrics["val/reward/succeeded_rollouts"] == sum(reward >= 1 for reward in rewards)
    assert metrics["val/reward/failed_rollouts"] == sum(reward < 1 for reward in rewards)


def check_outputs(aws: AWS, job: dict[str, Any], found: list[dict[str, Any]]) -> None:
    sagemaker, s3 = aws.client("sagemaker"), aws.client("s3")
    package = sagemaker.describe_model_package(ModelPackageName=job["Output"]["OutputModelPackageArn"])
    assert "The policy was not updated" in package["ModelPackageDescription"]
    assert len(sagemaker.list_model_packages(ModelPackageGroupName="checkpoints")["ModelPackageSummaryList"]) == 2
    lines = s3.get_object(Bucket="bucket", Key="out/j/trajectories.jsonl")["Body"].read().splitlines()
    assert {json.loads(line)["trajectory_id"] for line in lines} == {each["trajectory_id"] for each in found}


def test_an_evaluation_job_writes_its_results(kept: dict[str, Any]) -> None:
    with aws_with("good", **kept) as aws:
        aws.prepare()
        arn = aws.create(evaluation(), category="AgentRFTEvaluation")
        job = aws.ended(category="AgentRFTEvaluation")
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        results = json.loads(aws.client("s3").get_object(Bucket="bucket", Key="out/eval-results.json")["Body"].read())
        found = trajectories(aws, arn)
        assert len(found) == 10
        assert results["eval/reward/mean"] == fmean(each["rewards"][0] for each in found) == 0.5
        assert (results["eval/reward/pass_at_1"], results["eval/reward/pass_at_2"]) == (0.5, 1.0)
        assert (results["eval/reward/pass_power_2"], results["eval/reward/std_within_groups"]) == (0.0, 0.5)
        assert results["eval/turns/mean"] == 2
        usage = job["Output"]["BillableTokenUsage"]
        assert usage == {
            "PrefillTokenCount": sum(each["usage"]["prompt_tokens"] for each in found),
            "SampleTokenCount": sum(each["usage"]["completion_tokens"] for each in found),
        }


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("signals_failure", "The agent signaled that the trajectory failed"),
        ("never_samples", "No sampling requests were received for this rollout"),
        ("seals_without_reward", "The rollout completed but no reward was received in time"),
        ("raises", "a bug of the agent"),
        ("never_answers", "No sampling requests were received for this rollout"),
    ],
)
def test_a_job_whose_agent_does_not_behave_fails_with_the_text_of_its_rollouts(agent: str, said: str) -> None:
    with aws_with(agent) as aws:
        aws.prepare()
        timeout = 20 if agent != "never_answers" else 0.5
        aws.create(training(rollout_max_retries=0, rollout_timeout=timeout))
        job = aws.ended()
        assert job["JobStatus"] == "Failed"
        assert said in job["FailureReason"]
        assert job["FailureReason"] in aws.log()


def test_a_reason_that_no_database_can_hold_ends_a_job_all_the_same(kept: dict[str, Any]) -> None:
    with aws_with("raises_what_is_no_text", **kept) as aws:
        aws.prepare()
        aws.create(training(rollout_max_retries=0))
        job = aws.ended()
        assert job["JobStatus"] == "Failed"
        assert "a bug: ? \ufffd" in job["FailureReason"]
        assert job["FailureReason"] in aws.log()


def test_too_few_prompts() -> None:
    with aws_with("good") as aws:
        aws.prepare(prompts=2)
        aws.create(training())
        job = aws.ended()
        assert job["JobStatus"] == "Failed"
        assert job["FailureReason"] == (
            "ClientError: Training data has 2 prompts but global_batch_size is 2. "
            "The number of prompts must be greater than the batch size."
        )


def test_a_missing_bucket() -> None:
    with aws_with("good") as aws:
        aws.create(training())
        assert "NoSuchBucket" in aws.ended()["FailureReason"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("OutputDataConfig", "S3OutputPath"), "s3://nowhere/out", "s3://nowhere/out: NoSuchBucket"),
        (("OutputDataConfig", "S3OutputPath"), "https://bucket/out", "are written to S3 URIs alone"),
        (("ModelPackageConfig", "OutputModelPackageGroupArn"), GROUP.format("nobody"), "package-group/nobody: Val"),
    ],
)
def test_what_is_not_there_for_the_results_is_missed_before_the_first_rollout(
    path: tuple[str, str], value: str, said: str
) -> None:
    with aws_with("never_answers") as aws:
        aws.prepare()
        document = training()
        document[path[0]][path[1]] = value
        arn = aws.create(document)
        assert said in aws.ended(within=20)["FailureReason"]
        assert trajectories(aws, arn) == []


def test_results_go_to_keys_of_any_characters() -> None:
    with aws_with("good") as aws:
        aws.prepare()
        document = training()
        document["OutputDataConfig"]["S3OutputPath"] = "s3://bucket/a#b?c/"
        aws.create(document)
        assert aws.ended()["JobStatus"] == "Completed"
        aws.client("s3").head_object(Bucket="bucket", Key="a#b?c/j/trajectories.jsonl")


def test_an_unknown_agent() -> None:
    with aws_with("good") as aws:
        aws.prepare()
        document = training()
        arn = document["AgentConfig"]["CustomAgentLambdaConfig"]["LambdaArn"]
    with aws_with("good", agents=()) as aws:
        aws.prepare()
        aws.create(document)
        assert f"no agent here stands for {arn}" in aws.ended()["FailureReason"]


def test_a_job_that_is_stopped_breaks_off_what_is_in_flight_and_keeps_what_there_is(kept: dict[str, Any]) -> None:
    with aws_with("good_when_told", **kept) as aws:
        aws.prepare()
        arn = aws.create(training(max_steps=2, max_epochs=1))
        aws.until(lambda job: job["SecondaryStatus"] == "Training" and len(trajectories(aws, arn)) == 4)
        aws.client("sagemaker").stop_job(JobName="j", JobCategory="AgentRFT")
        assert aws.describe()["JobStatus"] in {"Stopping", "Stopped"}
        job = aws.ended()
        assert (job["JobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
        assert "OutputModelPackageArn" not in job["Output"]  # no step was done
        assert {each["completion"] for each in trajectories(aws, arn)} == {"failed"}
        aws.client("sagemaker").delete_job(JobName="j", JobCategory="AgentRFT")


def test_of_a_job_that_is_stopped_the_steps_that_were_done_are_kept(kept: dict[str, Any]) -> None:
    with aws_with("good_in_the_first_step", **kept) as aws:
        aws.prepare()
        arn = aws.create(training())
        aws.until(lambda job: job["Output"].get("ProgressInfo", {}).get("CurrentStep") == 1)
        aws.until(lambda _: len(trajectories(aws, arn)) == 8)
        aws.client("sagemaker").stop_job(JobName="j", JobCategory="AgentRFT")
        job = aws.ended()
        assert (job["JobStatus"], job["Output"]["ProgressInfo"]["CurrentStep"]) == ("Stopped", 1)
        package = aws.client("sagemaker").describe_model_package(
            ModelPackageName=job["Output"]["OutputModelPackageArn"]
        )
        assert "The policy was not updated" in package["ModelPackageDescription"]
        lines = aws.client("s3").get_object(Bucket="bucket", Key="out/j/trajectories.jsonl")["Body"].read().splitlines()
        assert sum(json.loads(line)["eligible"] for line in lines) == 4


def test_a_job_that_takes_too_long_is_stopped(kept: dict[str, Any]) -> None:
    with aws_with("never_answers", **kept) as aws:
        aws.prepare()
        document = training()
        document["StoppingCondition"] = {"MaxRuntimeInSeconds": 1}
        aws.create(document)
        job = aws.ended()
        assert (job["JobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_one_job_of_a_category_at_a_time_where_aws_s_limits_hold(kept: dict[str, Any]) -> None:
    with aws_with("never_answers", limits="aws", **kept) as aws:
        aws.prepare()
        document = training()
        document["TrainingConfig"]["HyperParameters"] = {"global_batch_size": "8"}
        aws.create(document, "one")
        with pytest.raises(aws.client("sagemaker").exceptions.ResourceLimitExceeded):
            aws.create(document, "two")
        agents.GO.set()


def test_a_server_goes_on_with_the_job_of_the_one_before(database: Any) -> None:
    settings = {"durability": "full", "database": str(database)}
    with aws_with("good_when_told", **settings) as aws:
        aws.prepare()
        arn = aws.create(training())
        aws.until(lambda job: job["SecondaryStatus"] == "Training" and len(trajectories(aws, arn)) == 4)
    assert not agents.GO.is_set()
    agents.GO.set()
    with aws_with("good", **settings) as aws:
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        assert "Restarting" in [each["Status"] for each in job["SecondaryStatusTransitions"]]
        eligible = [each for each in trajectories(aws, arn) if each["eligible"]]
        assert len(eligible) == 8
        usage = job["Output"]["BillableTokenUsage"]
        assert usage["SampleTokenCount"] == sum(each["usage"]["completion_tokens"] for each in eligible)
