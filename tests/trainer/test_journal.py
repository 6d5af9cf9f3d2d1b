"""The journal of a run where the disk is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emulator.trainer.journal import Journal, JournalError
from emulator.trainer.rollouts import Rollout, Row
from tests.trainer.playing import alone


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """As on a full disk, a write ends in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_that_did_not_fit_spoils_none_that_comes_after_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    rollout = Rollout(Row(0, "p", {"prompt": "p"}), 0)

    async def work() -> None:
        journal = Journal(path, resume=False, run={"job_arn": "j"})
        await journal.attempted(rollout, "first")
        with files_no_longer_than(path.stat().st_size + 10), pytest.raises(JournalError, match="File too large"):
            await journal.attempted(rollout, "second")
        await journal.attempted(rollout, "third")
        await journal.aclose(remove=False)
        resumed = Journal(path, resume=True)
        assert resumed.past.interrupted == {(0, 0): "third"}
        await resumed.aclose(remove=True)

    alone(work())
