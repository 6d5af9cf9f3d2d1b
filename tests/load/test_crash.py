"""SIGKILL under load, as in `tests/test_crash.py`: on PostgreSQL, and in the middle of streams."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from emulator.address import Address, DatabaseURL
from tests.crashes import chain_of_crashes, slow_echo
from tests.model_servers import model_server
from tests.postgresql import PostgreSQL

pytestmark = pytest.mark.load

#: Databases that are killed side by side, and how often the server of each is killed.
DATABASES, KILLS = 3, 25


def test_what_was_acknowledged_survives_kills_in_the_middle_of_streams_50_on_postgresql_and_25_on_sqlite(
    database: Path, postgresql: PostgreSQL, tmp_path: Path, report: Callable[[str], None]
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    databases: list[Address] = [database, *(DatabaseURL(postgresql.create_database()) for _ in range(DATABASES - 1))]
    with model_server(slow_echo) as model, ThreadPoolExecutor(DATABASES) as pool:
        chains = [
            pool.submit(
                chain_of_crashes,
                each,
                model.url,
                log=tmp_path / f"{index}.log",
                durability="normal",
                seed=seed + index,
                kills=KILLS,
            )
            for index, each in enumerate(databases)
        ]
        rounds = [life for chain in chains for life in chain.result()]
    told = [each for life in rounds for each in life.told.values()]
    answered = sum(len(each.answered) for each in told)
    cut = sum(b"data: " in each.received and len(each.answered) < len(each.asked) for each in told)
    sealed, rewarded = sum(each.sealed for each in told), sum(each.rewarded for each in told)
    report(
        f"{len(rounds)} kills, {answered:,} samples, {sealed:,} seals, {rewarded:,} rewards acknowledged: lost 0, "
        f"doubled 0, wrong 0; {cut} streams were cut in the middle"
    )
    assert len(rounds) == DATABASES * KILLS
    # It was a load, and it was cut off in the middle of everything.
    assert answered > 4 * len(rounds)
    assert sealed > len(rounds)
    assert rewarded > len(rounds) / 2
    assert cut > len(rounds) / 4
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()
