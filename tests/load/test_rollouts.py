"""1,000 rollouts at concurrency 96, to their end, and killed in the middle: each accounted for, none done twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.rolling import ACT, assert_all_accounted_for, lines_of_journal, rolling, until, write_rows

pytestmark = pytest.mark.load

ROWS, GROUP = 125, 8

Report = Callable[[str], None]


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, ...]:
    """What the command is called with."""
    return (write_rows(tmp_path, [{"turns": 2}] * ROWS), "--agent", ACT, "--group-size", str(GROUP))


def test_1000_rollouts_are_all_accounted_for(run: tuple[str, ...], tmp_path: Path, report: Report) -> None:
    began_at = time.monotonic()
    with rolling(tmp_path, *run) as process:
        _, errors = process.communicate()
    seconds = time.monotonic() - began_at
    assert process.returncode == 0, errors
    assert_all_accounted_for(tmp_path, ROWS, GROUP)
    report(f"1,000 rollouts of 2 turns, agents in the same process: {seconds:.1f} s, start and end included")


def test_1000_rollouts_killed_again_and_again_are_done_once_each(
    run: tuple[str, ...], tmp_path: Path, report: Report
) -> None:
    for done in (200, 400, 600, 800):
        with rolling(tmp_path, *run, *(("--resume",) if done > 200 else ())) as process:
            until(lambda done=done: lines_of_journal(tmp_path, "over") >= done, process)  # type: ignore[misc]
            process.kill()
    with rolling(tmp_path, *run, "--resume") as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert_all_accounted_for(tmp_path, ROWS, GROUP)
    report("1,000 rollouts, killed 4 times: none missing, none done twice")
