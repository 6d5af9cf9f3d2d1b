"""`MultiTurnRLTrainer` and `AgentRFTJob` of the unmodified SDK: `train.py`, run once, and what it found and left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.sdk import recomputed
from tests.sdk.conftest import MLFLOW_START, Run, ran

ACCOUNT = "us-west-2:123456789012"
FUNCTION = f"arn:aws:lambda:{ACCOUNT}:function"
RUNTIME = f"arn:aws:bedrock-agentcore:{ACCOUNT}:runtime/arithmetic-AbCdEfGhIj"
STATUSES = ["Starting", "Downloading", "Pending", "Training", "Uploading", "Completed"]

pytestmark = pytest.mark.timeout(300)  # the SDK alone takes half a minute on a busy machine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The script, after its end."""
    agents = (
        f"--agent={FUNCTION}:arithmetic=python:tests.sdk.agents:arithmetic",
        f"--agent={FUNCTION}:never-samples=python:tests.sdk.agents:never_samples",
        f"--agent={FUNCTION}:waits=python:tests.sdk.agents:waits",
        f"--agent={RUNTIME}=agentcore:APP",
    )
    with ran("train.py", tmp_path_factory.mktemp("train"), *agents, beside="agentcore_app") as run:
        yield run


@pytest.fixture
def trained(run: Run) -> dict[str, Any]:
    """What the script found when it trained with a Lambda function."""
    found: dict[str, Any] = run.report["lambda_agent"]
    return found


def test_nothing_but_this_machine_was_looked_up_or_connected_to(run: Run) -> None:
    assert run.left == []


def test_models_and_runtimes_are_listed(run: Run) -> None:
    assert "huggingface-reasoning-qwen3-4b" in run.report["lists"]["models"]
    (runtime,) = run.report["lists"]["runtimes"]
    assert (runtime["arn"], runtime["runtime_id"], runtime["status"]) == (RUNTIME, "arithmetic-AbCdEfGhIj", "READY")


def test_a_dry_run_makes_no_job(trained: dict[str, Any]) -> None:
    assert (trained["dry"], trained["before"]) == (None, [])


def test_who_waits_sees_the_job_complete(trained: dict[str, Any]) -> None:
    assert "Status: Completed - Completed" in trained["waited"]
    assert "Training in progress, step 2/2" in trained["waited"]
    job = trained["job"]
    assert (job["status"], job["secondary_status"], job["transitions"]) == ("Completed", "Completed", STATUSES)
    assert job["failure_reason"] == ""
    assert job["times"] == sorted(job["times"])


def test_the_job_says_what_it_was_told(trained: dict[str, Any]) -> None:
    job = trained["job"]
    assert job["agent_config"] == {"CustomAgentLambdaConfig": {"LambdaArn": f"{FUNCTION}:arithmetic"}}
    assert job["training_config"]["HyperParameters"] == {
        "global_batch_size": "3", "group_size": "4", "max_steps": "2", "rollout_max_retries": "0", "val_every": "1",
    }  # fmt: skip
    assert job["s3_output_path"] == "s3://training-data/lambda"


def test_logs_are_streamed(trained: dict[str, Any]) -> None:
    for streamed in (trained["streamed"], trained["streamed_by_job"]):
        lines = [line for line in streamed.splitlines() if line.startswith("[CloudWatch]")]
        assert lines[0].endswith("Downloading input data")
        assert lines[-1].endswith("Job completed")


def test_who_attaches_sees_the_same_job(trained: dict[str, Any]) -> None:
    assert trained["attached"] == trained["job"]


def test_the_rollouts_are_real_and_the_metrics_are_theirs(run: Run, trained: dict[str, Any]) -> None:
    job = trained["job"]
    rollouts = run.trajectories(job["arn"])
    assert all(each["eligible"] and each["turns"] for each in rollouts)
    sizes = {name: len(recomputed.part(rollouts, name)) for name in ("val-0", "train-1", "val-1", "train-2", "val-2")}
    assert sizes == {"val-0": 12, "train-1": 12, "val-1": 12, "train-2": 12, "val-2": 12}
    assert len(rollouts) == 60
    assert len({len(each["turns"]) for each in rollouts}) > 1
    metrics = run.metrics(job["name"])
    steps = [recomputed.part(rollouts, f"train-{step}") for step in (1, 2)]
    for number, step in enumerate(steps, 1):
        expected = recomputed.step(step)
        assert {name: metrics[number][name] for name in expected} == pytest.approx(expected)
    for number in (0, 1, 2):
        rewards = [each["rewards"][0] for each in recomputed.part(rollouts, f"val-{number}")]
        assert metrics[number]["val/reward/mean"] == pytest.approx(recomputed.mean(rewards))
        assert metrics[number]["val/reward/succeeded_rollouts"] == sum(reward >= 1 for reward in rewards)
    assert job["billable_token_usage"] == recomputed.usage(steps)
    assert job["progress_info"] == {"BatchSize": 3, "CurrentStep": 2, "MaxSteps": 2, "StepsPerEpoch": 2}


def test_the_metrics_in_mlflow_are_those_of_the_rollouts(run: Run, trained: dict[str, Any]) -> None:
    rollouts = run.trajectories(trained["job"]["arn"])
    expected = {step: recomputed.step(recomputed.part(rollouts, f"train-{step}")) for step in (1, 2)}
    assert [row["step"] for row in trained["metrics"]] == [1, 2]
    for row in trained["metrics"]:
        found = {name: row[name] for name in row if name != "step"}
        assert found == pytest.approx({name: expected[row["step"]][name] for name in found})
    assert "Training Metrics" in trained["waited"]
    run_id = trained["job"]["mlflow_details"]["RunId"]
    for name in expected[1]:
        history = run.get("mlflow/api/2.0/mlflow/metrics/get-history", run_id=run_id, metric_key=name)["metrics"]
        values = {point["step"]: point["value"] for point in history}
        assert values == pytest.approx({step: expected[step][name] for step in (1, 2)}), name


def test_the_link_to_mlflow_leads_to_its_pages(run: Run, trained: dict[str, Any]) -> None:
    details = trained["job"]["mlflow_details"]
    assert f"#/experiments/{details['ExperimentId']}/runs/{details['RunId']}" in trained["mlflow_url"]
    path = trained["mlflow_url"].partition("/_emulator/")[2]
    page = httpx2.get(f"{run.url}/_emulator/{path}", follow_redirects=True, timeout=MLFLOW_START)
    assert (page.status_code, "<title>MLflow</title>" in page.text) == (200, True)


def test_experiments_and_runs_are_named_as_the_script_says(run: Run) -> None:
    found = run.report["other_agents"]
    details = found["custom"]["mlflow_details"]
    assert (details["ExperimentName"], details["RunName"]) == ("an experiment", "a run")
    assert [len(rows) for rows in found["metrics"]] == [2, 2]


def test_the_model_package_says_that_nothing_was_learned(run: Run, trained: dict[str, Any]) -> None:
    arn = trained["output_model_package_arn"]
    assert arn == trained["job"]["output_model_package_arn"]
    package = run.client("sagemaker").describe_model_package(ModelPackageName=arn)
    assert "The policy was not updated" in package["ModelPackageDescription"]


def test_an_agentcore_runtime_is_found_by_its_id_and_does_the_rollouts(run: Run) -> None:
    found = run.report["other_agents"]
    job = found["agentcore"]
    assert (job["status"], job["failure_reason"]) == ("Completed", "")
    assert job["agent_config"] == {"BedrockAgentCoreConfig": {"AgentRuntimeArn": RUNTIME, "Qualifier": "DEFAULT"}}
    check_training(run, job)
    assert "Job completed" in found["streamed"]


def test_a_function_that_the_script_creates_does_the_rollouts(run: Run) -> None:
    found = run.report["other_agents"]
    assert found["function"] == f"{FUNCTION}:made-for-it"
    job = found["custom"]
    assert (job["status"], job["failure_reason"]) == ("Completed", "")
    assert job["agent_config"] == {"CustomAgentLambdaConfig": {"LambdaArn": found["function"]}}
    check_training(run, job)


def check_training(run: Run, job: dict[str, Any]) -> None:
    """Two steps of three prompts and four rollouts each."""
    rollouts = run.trajectories(job["arn"])
    metrics = run.metrics(job["name"])
    for number in (1, 2):
        step = recomputed.part(rollouts, f"train-{number}")
        assert len(step) == 12
        rewards = [each["rewards"][0] for each in step]
        assert metrics[number]["rollout/reward/mean"] == pytest.approx(recomputed.mean(rewards))
        assert metrics[number]["rollout/turns/mean"] == recomputed.mean([len(each["turns"]) for each in step])
    assert job["billable_token_usage"]["SampleTokenCount"] == recomputed.sampled(rollouts)


def test_a_job_whose_agent_never_samples_fails_and_says_so(run: Run) -> None:
    job = run.report["failing_agent"]["job"]
    assert (job["status"], job["transitions"][-1]) == ("Failed", "Failed")
    assert "No sampling requests were received for this rollout" in job["failure_reason"]


def test_a_job_is_stopped_and_deleted(run: Run) -> None:
    found = run.report["stopped"]
    assert found["progress"] == {"BatchSize": 3, "CurrentStep": 0, "MaxSteps": 2, "StepsPerEpoch": 2}
    assert (found["job"]["status"], found["job"]["secondary_status"]) == ("Stopped", "Stopped")
    assert found["gone"] == "ResourceNotFound"


def test_jobs_are_listed_by_every_filter(run: Run) -> None:
    names = ["lambda", "agentcore", "custom", "failing"]
    assert run.report["listed"] == {
        "all": names,
        "all, the last first": names[::-1],
        "by name": sorted(names),
        "named": ["custom"],
        "failed": ["failing"],
        "of the last hour": sorted(names),
        "before": [],
        "changed in the last hour": sorted(names),
        "changed before": [],
    }
