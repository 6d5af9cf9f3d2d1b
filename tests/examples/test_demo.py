"""The demo runs, against the embedded model."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.examples.agents import ROOT


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make demo` does."""
    return subprocess.run(
        [sys.executable, "-m", "examples.demo", *arguments],
        check=False, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"COLUMNS": "120"},
    )  # fmt: skip


def test_the_demo_shows_every_trajectory_with_its_turns_tokens_and_reward() -> None:
    done = demo("--limit", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4/4" in done.stdout
    assert done.stdout.count("reward-received") == 4
    assert "tokens out" in done.stdout


def test_a_demo_whose_rollouts_break_says_so_and_fails() -> None:
    done = demo("--limit", "1", "--model", "http://127.0.0.1:9", "--patience", "0")
    assert done.returncode == 1
    assert "the model server was not ready in time" in done.stderr
