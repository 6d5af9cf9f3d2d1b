"""`job-runtime-local run --` around a script of the SDK's user, where the only network is loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.environments import client_variables
from tests.sdk.conftest import ROOT, command
from tests.sdk.loopback import enclosed


@pytest.mark.timeout(300)
def test_the_shortest_script_trains_without_a_network_and_without_a_set_up(tmp_path: Path) -> None:
    report, notes = tmp_path / "report.json", tmp_path / "left.json"
    options = ["--model", f"scripted:{ROOT}/examples/arithmetic_model.yaml", "--mlflow", "off"]
    script = command("defaults.py", notes, report)
    variables = client_variables() | {"PYTHONPATH": str(ROOT)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # some of these packages take 20 s to compile
    done = subprocess.run(
        enclosed([sys.executable, "-m", "emulator", "run", *options, "--", *script]),
        cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    assert json.loads(notes.read_text()) == []
    found = json.loads(report.read_text())
    assert found["status"] == "Completed"
    assert found["progress"] == {"BatchSize": 2, "CurrentStep": 2, "MaxSteps": 2, "StepsPerEpoch": 20}
    assert all(found["usage"].values())
    assert found["account"] == "123456789012"
    assert found["caller"].startswith("arn:aws:iam::123456789012:role/")
    assert found["data"].startswith("s3://sagemaker-us-west-2-123456789012/data/")
    assert found["output"].startswith("s3://sagemaker-us-west-2-123456789012/")
    assert found["mlflow"] == {"MlflowResourceArn": "arn:aws:sagemaker:us-west-2:123456789012:mlflow-app/app-local"}
