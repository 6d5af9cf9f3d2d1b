"""`make demo` runs, against the embedded model."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.examples.agents import ROOT, example_variables


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make demo` does."""
    variables = example_variables() | {"DEMO_FOLDER": str(folder), "COLUMNS": "160"}
    return subprocess.run(
        [ROOT / "scripts" / "demo.sh", *arguments],
        check=False, capture_output=True, text=True, cwd=ROOT, env=variables,
    )  # fmt: skip


def test_the_demo_shows_rewards_and_trajectories(tmp_path: Path) -> None:
    done = demo(tmp_path, "scripted", "--limit", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rewarded, 0 failed" in done.stdout
    assert "pass@k" in done.stdout
    assert done.stdout.count("reward-received") == 8
    assert (tmp_path / "rollouts.json").exists()


def test_a_demo_without_a_model_says_so_and_fails(tmp_path: Path) -> None:
    done = demo(tmp_path, "http://127.0.0.1:9", "--limit", "1", "--wait", "0.1")
    assert done.returncode != 0
    assert "the model server is not ready" in done.stderr
