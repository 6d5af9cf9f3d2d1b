"""`MultiTurnRLEvaluator` of the unmodified SDK: `evaluate.py`, run once, and what it found and left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sdk import recomputed
from tests.sdk.conftest import Run, ran

FUNCTION = "arn:aws:lambda:us-west-2:123456789012:function"
AGENTS = (
    f"--agent={FUNCTION}:arithmetic=python:tests.sdk.agents:arithmetic",
    f"--agent={FUNCTION}:never-samples=python:tests.sdk.agents:never_samples",
)

pytestmark = pytest.mark.timeout(300)  # the SDK alone takes half a minute on a busy machine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The script, after its end."""
    with ran("evaluate.py", tmp_path_factory.mktemp("evaluate"), *AGENTS) as run:
        yield run


def test_nothing_but_this_machine_was_looked_up_or_connected_to(run: Run) -> None:
    assert run.left == []


def test_a_dry_run_starts_nothing(run: Run) -> None:
    assert (run.report["base_model"]["dry"], run.report["base_model"]["before"]) == (None, 0)


def test_a_base_model_is_evaluated_by_a_pipeline(run: Run) -> None:
    execution = run.report["base_model"]["execution"]
    assert execution["status"] == "Succeeded"
    assert {name: step["status"] for name, step in execution["steps"].items()} == {
        "CreateEvaluationAction": "Succeeded", "EvaluateBaseModel": "Succeeded", "AssociateLineage": "Succeeded",
    }  # fmt: skip
    check_evaluation(run, execution["steps"]["EvaluateBaseModel"]["job"])


def test_an_execution_is_found_again_by_its_arn(run: Run) -> None:
    found = run.report["base_model"]
    assert (found["again"], found["kind"]) == (found["execution"], "MTRLEvaluationExecution")


def test_the_results_are_those_of_the_rollouts(run: Run) -> None:
    job = run.report["base_model"]["execution"]["steps"]["EvaluateBaseModel"]["job"]
    results = check_results(run, "base", job)
    assert results == read(run, "base/eval-results.json")


def test_the_metrics_in_mlflow_and_the_lineage_are_those_of_the_evaluation(run: Run) -> None:
    found = run.report["base_model"]
    details, job = found["mlflow_details"], found["execution"]["steps"]["EvaluateBaseModel"]["job"]
    assert details == describe(run, job)["ServiceOutput"]["MlflowDetails"]
    assert details["RunName"] == "base-model-eval"
    logged = run.get("mlflow/api/2.0/mlflow/runs/get", run_id=details["RunId"])["run"]["data"]["metrics"]
    metrics = {metric["key"]: metric["value"] for metric in logged}
    rewards = [each["rewards"][0] for each in run.trajectories(job)]
    assert metrics["eval/reward/mean"] == pytest.approx(recomputed.mean(rewards))
    artifacts = run.client("sagemaker").list_artifacts(SourceUri=details["RunId"])["ArtifactSummaries"]
    assert len(artifacts) == 1


def test_a_trained_model_is_evaluated_beside_its_base(run: Run) -> None:
    found = run.report["comparison"]
    execution = found["execution"]
    assert execution["status"] == "Succeeded"
    assert {step["status"] for step in execution["steps"].values()} == {"Succeeded"}
    for step in ("EvaluateBaseModel", "EvaluateFineTunedModel"):
        check_evaluation(run, execution["steps"][step]["job"])
        check_results(run, "comparison", execution["steps"][step]["job"])
    config = describe(run, execution["steps"]["EvaluateFineTunedModel"]["job"])
    assert config["ModelPackageConfig"] == {"InputModelPackageArn": found["package"]}


def test_a_trained_model_is_evaluated_alone(run: Run) -> None:
    found = run.report["comparison"]
    steps = found["tuned"]["steps"]
    assert (found["tuned"]["status"], "EvaluateBaseModel" in steps) == ("Succeeded", False)
    job = steps["EvaluateFineTunedModel"]["job"]
    check_evaluation(run, job)
    check_results(run, "tuned", job)
    assert describe(run, job)["ModelPackageConfig"] == {"InputModelPackageArn": found["package"]}


def test_models_are_listed(run: Run) -> None:
    assert "huggingface-reasoning-qwen3-4b" in str(run.report["choices"]["models"])
    assert run.report["choices"]["runtimes"] == []


def test_a_failing_agent_fails_the_evaluation_and_says_why(run: Run) -> None:
    execution = run.report["failing"]["execution"]
    assert execution["status"] == "Failed"
    assert "No sampling requests were received" in execution["steps"]["EvaluateBaseModel"]["reason"]


def test_executions_are_listed(run: Run) -> None:
    arns = [run.report[name]["execution"]["arn"] for name in ("base_model", "comparison", "failing")]
    arns.append(run.report["comparison"]["tuned"]["arn"])
    assert run.report["listed"] == sorted(arns)


def describe(run: Run, arn: str) -> dict[str, Any]:
    """A job's document."""
    name = arn.rpartition("/")[2]
    job = run.client("sagemaker").describe_job(JobName=name, JobCategory="AgentRFTEvaluation")
    document: dict[str, Any] = json.loads(job["JobConfigDocument"])
    return document


def read(run: Run, key: str) -> Any:
    """An object of JSON."""
    return json.loads(run.client("s3").get_object(Bucket="evaluation-data", Key=key)["Body"].read())


def check_results(run: Run, folder: str, arn: str) -> Any:
    """A job's own results, which are those of its rollouts."""
    results = read(run, f"{folder}/{arn.rpartition('/')[2]}/eval-results.json")
    rewards = [each["rewards"][0] for each in run.trajectories(arn)]
    assert results["eval/reward/mean"] == pytest.approx(recomputed.mean(rewards))
    assert results["eval/reward/std"] == pytest.approx(recomputed.deviation(rewards))
    assert results["eval/reward/succeeded_rollouts"] == sum(reward >= 1 for reward in rewards)
    assert results["eval/reward/pass_at_1"] == pytest.approx(recomputed.mean([reward >= 1 for reward in rewards]))
    assert (results["eval/reward/num_prompts"], results["eval/reward/rollouts_per_prompt"]) == (4, 4)
    return results


def check_evaluation(run: Run, arn: str) -> None:
    """Four prompts, four rollouts each."""
    rollouts = run.trajectories(arn)
    assert len(rollouts) == 16
    assert all(each["eligible"] and each["turns"] for each in rollouts)
    assert describe(run, arn)["ServiceOutput"]["BillableTokenUsage"] == {
        "PrefillTokenCount": recomputed.read(rollouts),
        "SampleTokenCount": recomputed.sampled(rollouts),
    }
