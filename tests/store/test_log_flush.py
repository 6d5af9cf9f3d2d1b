"""The write-ahead log is synced beside the writer, before it is moved into the database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from emulator.store import writer as writer_module
from emulator.store.log_flush import LogFlush
from emulator.store.sqlite import SQLite
from tests.store.test_writer import append, open_trajectory, turn, writer_on
from tests.stored import eventually, stored_turns


def size_of(path: Path) -> int:
    return path.stat().st_size


def test_a_log_is_synced_when_it_is_asked_for_and_again_once_it_was_forgotten(tmp_path: Path) -> None:
    log = tmp_path / "a.db-wal"
    log.write_bytes(b"x" * 100_000)
    flush = LogFlush(tmp_path / "a.db")
    for _ in range(2):
        eventually(flush.is_done, "a sync")
        assert flush.is_done()
        flush.forget()
    flush.close()


def test_a_log_that_cannot_be_synced_is_left_to_the_checkpoint(tmp_path: Path) -> None:
    flush = LogFlush(tmp_path / "not there")
    eventually(flush.is_done, "an attempt")
    flush.close()


def test_the_log_is_moved_into_the_database_while_there_is_always_something_to_write(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "IDLE", 3600.0)

    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory, number = await open_trajectory(writer), 0
            while size_of(database) < 1_000_000:
                await append(writer, turn(trajectory, number, response=b"x" * 10_000))
                number += 1

    asyncio.run(asyncio.wait_for(body(), 60))
    assert all(each.response == b"x" * 10_000 for each in stored_turns(database, "t"))


def test_the_writer_goes_on_while_the_log_is_on_its_way_to_the_disk(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "IDLE", 3600.0)
    monkeypatch.setattr(SQLite, "can_checkpoint", lambda _: False)  # a disk that takes its time

    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            for number in range(2 * writer_module.CHECKPOINT_BYTES // 100_000):
                await append(writer, turn(trajectory, number, response=b"x" * 100_000))
            assert size_of(database) < 1_000_000  # all of it stands in the log
        assert size_of(database) > 2 * writer_module.CHECKPOINT_BYTES - 100_000

    asyncio.run(body())
