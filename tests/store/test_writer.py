"""Group commit: what was acknowledged is stored, what failed is not, and nothing takes anything else with it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from emulator.store import Turn, changes
from emulator.store.database import check
from emulator.store.sqlite import SQLite
from emulator.store.statements import Transaction
from emulator.store.writer import MAX_BATCH, StoreError, Writer
from emulator.trajectory import InvalidTransition, Status, TurnStatus, UnknownTrajectory
from tests.conftest import JOB_ARN
from tests.stored import PATIENCE, eventually, stored, stored_turns


@asynccontextmanager
async def writer_on(path: Path) -> AsyncIterator[tuple[Writer, SQLite]]:
    database = SQLite(path, "normal")
    database.open()
    writer = Writer(database)
    try:
        yield writer, database
    finally:
        await writer.aclose()
        database.close()


async def open_trajectory(writer: Writer, name: str = "t") -> int:
    row = await writer.change(
        (JOB_ARN, name),
        lambda connection: changes.open_trajectory(
            connection, job_arn=JOB_ARN, trajectory_id=name, may_create=True, any_job=True, now=1
        ),
    )
    return row.id


def seal(writer: Writer, name: str = "t", token: str | None = None) -> asyncio.Future[Status]:
    return writer.change(
        (JOB_ARN, name),
        lambda connection: changes.complete_rollout(
            connection,
            job_arn=JOB_ARN,
            trajectory_id=name,
            completion=Status.READY,
            client_token=token,
            any_job=True,
            now=2,
        ),
    )


def turn(trajectory: int, number: int, request: bytes = b"{}", response: bytes = b"{}") -> Turn:
    return Turn(
        trajectory=trajectory,
        number=number,
        status="completed",
        path="/v1/chat/completions",
        http_status=200,
        content_type="application/json",
        error=None,
        arrived_at=1,
        first_byte_at=2,
        ended_at=3,
        request=request,
        response=response,
    )


def append(writer: Writer, appended: Turn) -> asyncio.Future[None]:
    return writer.append((JOB_ARN, "t"), appended)


def pragma(sqlite: SQLite, text: str) -> None:
    """Set something on the one write connection."""
    sqlite.driver.execute(text).close()


def test_what_is_acknowledged_is_there_for_others_to_read(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            for number in range(3):
                await append(writer, turn(trajectory, number, b"ask %d" % number))
                assert [each.request for each in stored_turns(database, "t")] == [
                    b"ask %d" % n for n in range(number + 1)
                ]

    asyncio.run(body())


def test_more_writes_than_fit_one_batch_are_all_stored_once_and_in_order(database: Path) -> None:
    count = 3 * MAX_BATCH + 7

    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            await asyncio.gather(*(append(writer, turn(trajectory, number, b"%d" % number)) for number in range(count)))

    asyncio.run(body())
    assert [each.request for each in stored_turns(database, "t")] == [b"%d" % number for number in range(count)]


def test_a_turn_that_was_queued_before_the_seal_counts_and_one_queued_after_it_does_not(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            await asyncio.gather(append(writer, turn(trajectory, 0)), seal(writer), append(writer, turn(trajectory, 1)))

    asyncio.run(body())
    assert [each.status for each in stored_turns(database, "t")] == [TurnStatus.COMPLETED, TurnStatus.DISCARDED]


def test_a_write_that_fails_does_not_take_its_batch_with_it(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            outcomes = await asyncio.gather(
                append(writer, turn(trajectory, 0)),
                append(writer, turn(trajectory, 0, b"the same number again")),
                append(writer, turn(trajectory, 1)),
                seal(writer, "nobody"),
                seal(writer),
                seal(writer),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [
                *(type(None), StoreError, type(None)),
                *(UnknownTrajectory, Status, InvalidTransition),
            ]

    asyncio.run(body())
    assert [(each.number, each.request) for each in stored_turns(database, "t")] == [(0, b"{}"), (1, b"{}")]


def test_a_change_that_breaks_half_way_leaves_nothing_behind_and_the_writer_goes_on(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def half_way(transaction: Transaction) -> None:
        transaction.driver.execute("UPDATE trajectories SET trajectory_id = 'changed'")
        raise RuntimeError("half way")

    async def body() -> None:
        async with writer_on(database) as (writer, _):
            await open_trajectory(writer)
            with caplog.at_level(logging.CRITICAL), pytest.raises(StoreError):
                await writer.change((JOB_ARN, "t"), half_way)
            assert await seal(writer) is Status.READY

    asyncio.run(body())
    assert stored(database, "t")[0].status is Status.READY


def test_a_full_database_refuses_writes_wholly_and_takes_them_again_when_there_is_room(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, sqlite):
            trajectory = await open_trajectory(writer)
            await append(writer, turn(trajectory, 0))
            pragma(sqlite, "PRAGMA max_page_count = 30")
            outcomes = await asyncio.gather(
                append(writer, turn(trajectory, 1, b"small")),
                append(writer, turn(trajectory, 2, bytes(1 << 20))),
                append(writer, turn(trajectory, 3, b"small")),
                return_exceptions=True,
            )
            assert [type(outcome) for outcome in outcomes] == [type(None), StoreError, type(None)]
            assert "full" in str(outcomes[1])
            pragma(sqlite, "PRAGMA max_page_count = 1000000")
            await append(writer, turn(trajectory, 2, bytes(1 << 20)))

    asyncio.run(body())
    assert [each.number for each in stored_turns(database, "t")] == [0, 1, 2, 3]
    assert check(database) == []


def test_a_turn_is_whole_although_the_commit_before_it_failed(database: Path) -> None:
    said = b"what was said so far " * 20

    async def body() -> None:
        async with writer_on(database) as (writer, sqlite):
            trajectory = await open_trajectory(writer)
            await append(writer, turn(trajectory, 0, said))
            sqlite.driver.set_authorizer(refuse_commits)
            with pytest.raises(StoreError):
                await append(writer, turn(trajectory, 1, said + b"and what nobody will know"))
            sqlite.driver.set_authorizer(None)
            for number in (1, 2):
                await append(writer, turn(trajectory, number, said + b"and %d" % number))

    asyncio.run(body())
    assert [each.request for each in stored_turns(database, "t")] == [said, said + b"and 1", said + b"and 2"]


def refuse_commits(action: int, first: str | None, *_rest: str | None) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION and first == "COMMIT" else sqlite3.SQLITE_OK


def test_a_file_that_became_read_only_refuses_writes_and_takes_them_again(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, sqlite):
            trajectory = await open_trajectory(writer)
            pragma(sqlite, "PRAGMA query_only = ON")
            with pytest.raises(StoreError, match="readonly"):
                await append(writer, turn(trajectory, 0))
            with pytest.raises(StoreError, match="readonly"):
                await seal(writer)
            pragma(sqlite, "PRAGMA query_only = OFF")
            await append(writer, turn(trajectory, 0))

    asyncio.run(body())
    assert len(stored_turns(database, "t")) == 1


def test_a_file_that_another_process_writes_to_refuses_writes_and_takes_them_again(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, sqlite):
            trajectory = await open_trajectory(writer)
            pragma(sqlite, "PRAGMA busy_timeout = 0")
            stranger = sqlite3.connect(database, isolation_level=None)
            stranger.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await append(writer, turn(trajectory, 0))
            stranger.execute("ROLLBACK")
            stranger.close()
            await append(writer, turn(trajectory, 0))
            assert await seal(writer) is Status.READY

    asyncio.run(body())
    assert len(stored_turns(database, "t")) == 1


def test_a_log_that_cannot_be_moved_into_the_database_does_not_stop_the_writer(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, sqlite):
            trajectory = await open_trajectory(writer)
            sqlite.driver.set_authorizer(refuse_checkpoints)  # the disk is full, say
            await append(writer, turn(trajectory, 0))
            warned = lambda: "could not be moved into the database" in caplog.text  # noqa: E731
            await asyncio.to_thread(eventually, warned, "a warning")
            await asyncio.wait_for(append(writer, turn(trajectory, 1)), PATIENCE)
            sqlite.driver.set_authorizer(None)

    asyncio.run(body())
    assert len(stored_turns(database, "t")) == 2


def refuse_checkpoints(action: int, first: str | None, *_rest: str | None) -> int:
    refused = action == sqlite3.SQLITE_PRAGMA and first == "wal_checkpoint"
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


def test_the_log_is_moved_into_the_database_when_there_is_nothing_else_to_do(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            await append(writer, turn(trajectory, 0, b"x" * 100_000))
            await asyncio.to_thread(eventually, lambda: database.stat().st_size > 100_000, "a checkpoint")

    asyncio.run(body())


def test_a_server_that_had_nothing_to_do_says_nothing(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with writer_on(database):
            pass

    asyncio.run(body())
    assert caplog.text == ""


def test_writes_after_the_end_are_refused_and_those_before_it_are_stored(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            waiting = [append(writer, turn(trajectory, number)) for number in range(20)]
            await writer.aclose()
            await asyncio.gather(*waiting)
            with pytest.raises(StoreError, match="stopping"):
                await append(writer, turn(trajectory, 20))

    asyncio.run(body())
    assert len(stored_turns(database, "t")) == 20


def test_a_write_whose_caller_gave_up_is_stored_all_the_same(database: Path) -> None:
    async def body() -> None:
        async with writer_on(database) as (writer, _):
            trajectory = await open_trajectory(writer)
            append(writer, turn(trajectory, 0)).cancel()
            await append(writer, turn(trajectory, 1))

    asyncio.run(body())
    assert [each.number for each in stored_turns(database, "t")] == [0, 1]
