"""Two thousand streams at once: each is its own to the end, and they cost little memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import pytest

from emulator.store.database import check
from tests.load.agents import Work, roll_out
from tests.load.ledger import audit
from tests.load.process import load
from tests.load.streams import hold_streams
from tests.serving import serving
from tests.stored import iterate_stored

pytestmark = pytest.mark.load

STREAMS, EVENTS, PACE = 2_000, 64, 0.4
SAMPLES = 2_000
MOST_MEMORY = 120e6


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory that another process had is known on Linux only")
def test_2_000_streams_at_once_are_passed_on_event_by_event_and_stored_in_little_memory(
    database: Path, tmp_path: Path, model: str, report: Callable[[str], None]
) -> None:
    # Most shells let a process open 1,024 files.
    with serving(database, model, log=tmp_path / "log", open_files=1024) as server:
        with load(roll_out, Work((server.url,), "t", seed=1, rollouts=100, turns=5, clients=32)) as agents:
            ledger = agents.result()
        before = server.memory()
        counts = {"streams": STREAMS, "events": EVENTS, "samples": SAMPLES}
        with load(hold_streams, server.url, pace=PACE, **counts) as clients:
            beside = clients.result()
        memory = server.most_memory() - before
    ledger.add(beside)
    found = audit(ledger, iterate_stored(database))
    percentiles = quantiles(beside.delays, n=100)
    report(
        f"{STREAMS:,} streams of {EVENTS} events at once, {SAMPLES:,} samples beside them: {found}; "
        f"{beside.seconds:.0f} s, {memory / 1e6:.0f} MB more memory, "
        f"samples took {percentiles[49] * 1000:.1f} ms (p50), {percentiles[98] * 1000:.1f} ms (p99)"
    )
    assert found.faults == []
    assert beside.answered == STREAMS + SAMPLES
    assert ledger.answered == found.turns
    assert memory < MOST_MEMORY
    assert check(database) == []
    assert "Traceback" not in (tmp_path / "log").read_text()
