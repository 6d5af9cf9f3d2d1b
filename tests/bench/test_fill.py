"""Databases that are filled for the benchmark are such as the emulator makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text

from bench.fill import TURNS_A_TRAJECTORY, fill, row_of
from emulator.settings import Settings
from emulator.store.database import check
from emulator.testing import running_server
from tests.stored import all_stored


def test_a_filled_database_holds_rewarded_trajectories_and_is_served(tmp_path: Path) -> None:
    path = tmp_path / "filled.db"
    settings = Settings(port=0, database=str(path), durability="normal")
    with running_server(settings):
        pass
    fill(path, 50)
    assert check(path) == []
    stored = all_stored(path)
    assert len(stored) == 50 // TURNS_A_TRAJECTORY
    for trajectory, turns in stored.values():
        assert trajectory.status == "reward-received"
        assert [turn.number for turn in turns] == list(range(TURNS_A_TRAJECTORY))
        assert {len(turn.request) for turn in turns} == {2048}
    with running_server(settings):
        pass


def test_a_column_that_the_benchmark_does_not_know_is_named() -> None:
    table = Table("turns", MetaData(), Column("id", Integer, primary_key=True), Column("mood", Text, nullable=False))
    with pytest.raises(LookupError, match=r"turns\.mood"):
        row_of(table, {"id": 1})


def test_columns_with_defaults_may_be_left_out() -> None:
    columns = (Column("note", Text), Column("base", Integer, server_default="0", nullable=False))
    table = Table("turns", MetaData(), Column("id", Integer, primary_key=True), *columns)
    assert row_of(table, {"id": 1, "unknown": 2}) == {"id": 1}
