"""A hundred thousand samples: each is answered with its own answer, and stored once, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.store.database import check
from tests.load.agents import Work, roll_out
from tests.load.ledger import audit
from tests.load.process import load
from tests.serving import serving
from tests.stored import iterate_stored

pytestmark = pytest.mark.load

ROLLOUTS, TURNS, CLIENTS = 10_000, 10, 256


def test_100_000_samples_over_256_connections_are_stored_once_each_and_answered_with_their_own(
    database: Path, tmp_path: Path, model: str, report: Callable[[str], None]
) -> None:
    with serving(database, model, log=tmp_path / "log") as server:
        work = Work((server.url,), "t", seed=1, rollouts=ROLLOUTS, turns=TURNS, clients=CLIENTS)
        with load(roll_out, work) as agents:
            ledger = agents.result()
        memory = server.memory()
    found = audit(ledger, iterate_stored(database))
    size = database.stat().st_size
    sealed = sum(told.completion is not None for told in ledger.told.values())
    rewarded = sum(told.rewards is not None for told in ledger.told.values())
    report(
        f"{ledger.answered:,} samples over {CLIENTS} connections, {sealed:,} seals, {rewarded:,} rewards: {found}; "
        f"{ledger.rate:,.0f} a second, the slowest {ledger.slowest:.1f} s, {memory / 1e6:.0f} MB of memory after it, "
        f"{size / found.turns:,.0f} bytes a turn on disk of {found.size / found.turns:,.0f}"
    )
    assert found.faults == []
    assert ledger.answered == found.turns == ROLLOUTS * TURNS
    assert not ledger.retries
    assert size < found.size / 2  # what the requests of a rollout share is stored once
    assert check(database) == []
    assert "Traceback" not in (tmp_path / "log").read_text()
