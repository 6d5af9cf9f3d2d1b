"""The server is killed while a script of the SDK's user waits for its job."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from tests.clients.environments import program
from tests.sdk import ROOT, recomputed
from tests.sdk.conftest import HERE, Run, variables
from tests.sdk.guarded import left
from tests.serving import serving

STEPS = 20


@pytest.mark.timeout(300)
def test_a_script_that_waits_sees_its_job_go_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_RUNTIME_LOCAL_AGENTS", "python:tests.sdk.agents:arithmetic")
    monkeypatch.setenv("JOB_RUNTIME_LOCAL_MLFLOW", "off")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    database, log, report = (tmp_path / name for name in ("emulator.db", "log", "report.json"))
    model = f"scripted:{ROOT}/examples/arithmetic_model.yaml"
    with serving(database, model, log=log, durability="full") as first:
        shown = subprocess.run(
            [sys.executable, "-m", "emulator", "env", "--endpoint", first.url, "--format", "json"],
            cwd=tmp_path, capture_output=True, check=True,
        )  # fmt: skip
        told = {**json.loads(shown.stdout), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        port = int(first.url.rpartition(":")[2])
        with (tmp_path / "output").open("w") as output:
            script = subprocess.Popen(
                [str(program("sagemaker", "python")), str(HERE / "patient.py"), str(report)],
                cwd=tmp_path,
                env=variables(tmp_path) | told,
                stdout=output,
                stderr=output,
            )
        try:
            while script.poll() is None and _steps(first.url) < 2:
                time.sleep(0.05)
            first.kill()
            with serving(database, model, log=log, durability="full", port=port) as second:
                assert script.wait(200) == 0, (tmp_path / "output").read_text()[-4000:]
                run = Run(second.url, json.loads(report.read_text()), left(tmp_path))
                _check(run)
        finally:
            script.kill()
            script.wait()


def _steps(url: str) -> int:
    """Of how many steps rollouts were begun."""
    listed = httpx2.get(f"{url}/_emulator/trajectories", params={"limit": 500}).json()["trajectories"]
    return len({each["trajectory_id"].rsplit("-", 3)[0] for each in listed})


def _check(run: Run) -> None:
    """The job was begun again, did all of its steps, and counted none of their rollouts twice."""
    job = run.report
    assert (run.left, job["status"]) == ([], "Completed")
    assert "Restarting" in job["transitions"]
    assert job["progress"]["CurrentStep"] == STEPS
    rollouts = [each for each in run.trajectories(job["arn"]) if each["eligible"]]
    steps = [recomputed.part(rollouts, f"train-{step}") for step in range(1, STEPS + 1)]
    assert [len(step) for step in steps] == [8] * STEPS
    assert job["usage"] == recomputed.usage(steps)
