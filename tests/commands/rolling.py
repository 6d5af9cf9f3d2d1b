"""`job-runtime-local rollout` in a process of its own, and the account of what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emulator.trajectory import Status
from tests.stored import iterate_stored

ROOT = Path(__file__).parent.parent.parent

ACT = "python:tests.trainer.agents:act"

#: No wait takes longer, unless something is broken.
PATIENCE = 50.0


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """A dataset in JSON Lines; its path."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"question {n}", **row}) + "\n" for n, row in enumerate(rows)))
    return str(path)


@contextmanager
def rolling(folder: Path, *arguments: str, quick: bool = True) -> Iterator[subprocess.Popen[str]]:
    """The command, in that folder; ends with the block at the latest."""
    command = [sys.executable, "-W", "error", "-m", "emulator", "rollout", *arguments]
    command += ["--rate", "none"] if quick else []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def rolled(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Its exit status, output and errors."""
    with rolling(folder, *arguments) as process:
        out, errors = process.communicate(timeout=PATIENCE)
        return process.returncode, out, errors


def report(folder: Path) -> dict[str, Any]:
    """The report that it wrote."""
    document: dict[str, Any] = json.loads((folder / "rollouts.json").read_text())
    return document


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that the process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines_of_journal(folder: Path, kind: str) -> int:
    """How many lines of a kind the journal has."""
    path = folder / "rollouts.json.journal"
    return path.read_bytes().count(f'{{"{kind}":'.encode()) if path.exists() else 0


def eligible(database: Path) -> Counter[str]:
    """How many trajectories a trainer may use there are of each rollout, ROW-MEMBER."""
    found: Counter[str] = Counter()
    for trajectory, _ in iterate_stored(database):
        if trajectory.eligible:
            row, member, _ = trajectory.trajectory_id.split("-")
            assert trajectory.group == row
            found[f"{row}-{member}"] += 1
    return found


def none_is_open(database: Path) -> bool:
    """Whether nothing can come of any trajectory later on."""
    return all(trajectory.status is not Status.OPEN for trajectory, _ in iterate_stored(database))


def assert_all_accounted_for(folder: Path, rows: int, group_size: int, database: str = "job-runtime-local.db") -> None:
    """Each rollout is in the report once, and has one trajectory that counts: the one that the report names."""
    document = report(folder)
    planned = [(row, member) for row in range(rows) for member in range(group_size)]
    assert [(each["row"], each["member"]) for each in document["rollouts"]] == planned
    assert document["counts"]["rewarded"] == len(planned)
    assert document["counts"]["not_run"] == 0
    assert not document["interrupted"]
    assert eligible(folder / database) == {f"{row}-{member}": 1 for row, member in planned}
    stored = {trajectory.trajectory_id for trajectory, _ in iterate_stored(folder / database) if trajectory.eligible}
    assert {each["trajectory_id"] for each in document["rollouts"]} == stored
    assert none_is_open(folder / database)
    assert not (folder / "rollouts.json.journal").exists()
