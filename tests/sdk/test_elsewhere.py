"""Hosts that the unmodified SDK has built in are the emulator; what it cannot do here, it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.conftest import Run, ran

JOB = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/by-hand"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The script, after its end."""
    with ran("elsewhere.py", tmp_path_factory.mktemp("elsewhere")) as run:
        yield run


def test_nothing_but_this_machine_was_looked_up_or_connected_to(run: Run) -> None:
    assert run.left == []


def test_the_sts_that_is_built_in_is_the_emulators(run: Run) -> None:
    hosts = run.report["hosts"]
    assert hosts["account"] == "123456789012"
    assert hosts["caller"] == "arn:aws:iam::123456789012:role/AmazonSageMaker-ExecutionRole"


def test_telemetry_ends_at_the_emulator(run: Run) -> None:
    status, text = run.report["hosts"]["telemetry"]
    assert (status, "<Code>NoSuchBucket</Code>" in text) == (404, True)


def test_the_mlflow_plugins_host_is_the_emulators_mlflow(run: Run) -> None:
    assert run.report["hosts"]["experiment"] is True
    assert run.get("mlflow/api/2.0/mlflow/experiments/get-by-name", experiment_name="by hand")


def test_the_runtimes_host_is_the_emulator(run: Run) -> None:
    (rollout,) = run.trajectories(JOB)
    assert (rollout["status"], rollout["rewards"], len(rollout["turns"])) == ("reward-received", [0.5], 1)


def test_an_evaluation_that_needs_a_container_fails_and_says_so(run: Run) -> None:
    found = run.report["benchmark"]
    assert (found["status"], found["raised"] is not None) == ("Failed", True)
    assert set(found["reasons"]) == {"ClientError: steps of type Training are not emulated; there are Job and Lineage"}


def test_an_mlflow_app_is_made_where_there_is_none(run: Run) -> None:
    (app,) = run.report["benchmark"]["apps"]
    assert app.startswith("finetune-mlflow-")


def test_a_training_job_in_a_container_is_completed_by_moto_at_once(run: Run) -> None:
    assert run.report["model_trainer"] == "Completed"
