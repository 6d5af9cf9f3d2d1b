"""What docs/jobs.md shows, done as it is printed, in an empty folder where the only network is loopback."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.inference.child import free_port
from tests.clients.environments import program
from tests.sdk import ROOT
from tests.sdk.conftest import variables
from tests.sdk.guarded import left
from tests.sdk.loopback import enclosed

JOBS = (ROOT / "docs" / "jobs.md").read_text()


def shown(language: str, number: int = 0) -> str:
    """A block of a language."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", JOBS, re.DOTALL)
    return blocks[number]


@pytest.mark.timeout(300)
def test_from_an_empty_folder_to_a_job_that_has_completed(tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(shown("py"))
    (tmp_path / "train.py").write_text(shown("python"))
    python = program("sagemaker", "python")
    environment = variables(tmp_path) | {
        "PATH": os.pathsep.join([str(python.parent), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "JOB_RUNTIME_LOCAL_MLFLOW_PYTHON": str(python),
    }
    command = shlex.split(shown("sh", 1))
    done = subprocess.run(
        enclosed([str(Path(sys.executable).parent / command[0]), *command[1:]]),
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    assert done.stdout.splitlines()[-1].startswith("Completed {'BatchSize': 2, 'CurrentStep': 2, 'MaxSteps': 2")
    assert "Training Metrics" in done.stdout
    assert ("refused" in done.stderr, left(tmp_path)) == (False, [])


@pytest.mark.timeout(120)
def test_a_job_of_a_document(tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(shown("py"))
    (tmp_path / "document.json").write_text(shown("json"))
    rows = [json.dumps({"prompt": f"What is {number} * 7?", "answer": str(number * 7)}) for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    environment = variables(tmp_path) | {
        "PATH": os.pathsep.join(
            [str(program("awscli", "aws").parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        "JOB_RUNTIME_LOCAL_PORT": str(free_port()),
        "AWS_PAGER": "",
    }
    script = f"set -e; trap 'kill $!' EXIT\n{shown('sh', -1)}"
    done = subprocess.run(
        enclosed(["bash", "-c", script]),
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split()[1:3] == ["AgentRFT", "Completed"]
    assert left(tmp_path) == []
