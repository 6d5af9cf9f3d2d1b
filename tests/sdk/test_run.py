"""The shortest script of the SDK's user under `job-runtime-local run`: nothing is set up, MLflow is off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sdk.conftest import ran


@pytest.mark.timeout(300)
def test_the_shortest_script_trains_without_a_network_and_without_a_set_up(tmp_path: Path) -> None:
    with ran("defaults.py", tmp_path, mlflow=False) as run:
        found = run.report
        assert run.left == []
    assert found["status"] == "Completed"
    assert found["progress"] == {"BatchSize": 2, "CurrentStep": 2, "MaxSteps": 2, "StepsPerEpoch": 20}
    assert all(found["usage"].values())
    assert found["account"] == "123456789012"
    assert found["caller"].startswith("arn:aws:iam::123456789012:role/")
    assert found["data"].startswith("s3://sagemaker-us-west-2-123456789012/data/")
    assert found["output"].startswith("s3://sagemaker-us-west-2-123456789012/")
    assert found["mlflow"] == {"MlflowResourceArn": "arn:aws:sagemaker:us-west-2:123456789012:mlflow-app/app-local"}
