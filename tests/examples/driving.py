"""Runs of `job-runtime-local rollout` against an example, as its documentation has them, and what they left."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.store.queries import TrajectoryRecord, TurnRecord
from tests.examples.agents import ROOT, commands, example_variables
from tests.stored import iterate_stored


@dataclass(frozen=True)
class Run:
    """What a run left: its report, and its job's trajectories with their turns, by id."""

    status: int  #: of the command
    printed: str
    report: Mapping[str, Any]
    stored: Mapping[str, tuple[TrajectoryRecord, list[TurnRecord]]]

    @property
    def rewards(self) -> list[float | None]:
        """The reward of each rollout, None of one that failed."""
        return [rollout["reward"] for rollout in self.report["rollouts"]]


def drive(name: str, url: str | None, database: Path, *options: str, variables: Mapping[str, str] | None = None) -> Run:
    """Run the command of an example's documentation, with more options. `url` is where the example listens."""
    (command,) = (words for words in commands(name) if words[0] == "job-runtime-local")
    arguments = [word if url is None else word.replace("http://127.0.0.1:8080", url) for word in command[1:]]
    report = database.with_name(f"{name}.json")
    done = subprocess.run(
        [sys.executable, "-m", "emulator", *arguments, "--report", str(report), *options],
        check=False, capture_output=True, text=True, cwd=ROOT, env=example_variables() | {**(variables or {})},
    )  # fmt: skip
    assert report.exists(), done.stdout + done.stderr
    document = json.loads(report.read_text())
    stored = {
        trajectory.trajectory_id: (trajectory, turns)
        for trajectory, turns in iterate_stored(database)
        if trajectory.job_arn == document["run"]["job_arn"]
    }
    return Run(done.returncode, done.stdout + done.stderr, document, stored)
