"""A copy is whole or not there, whatever kind of database it comes from and goes to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, inspect, select

from emulator.address import Address, DatabaseURL
from emulator.settings import Settings
from emulator.store import DatabaseError, copy
from emulator.store.copy import Copied, copy_database
from emulator.store.database import check, open_database, reading
from emulator.store.libpq import PATIENT, engine
from emulator.store.schema import (
    client_tokens,
    contents,
    job_rollouts,
    jobs,
    known_jobs,
    pipeline_executions,
    trajectories,
    turns,
)
from emulator.store.sqlite import SQLite
from emulator.testing import running_server
from tests.conftest import JOB_ARN
from tests.postgresql import PostgreSQL
from tests.raw_client import RawClient
from tests.stored import spelled, stored_turns

BODY = b'{"messages": [{"role": "user", "content": "What is 2+2?"}]}'

NewDatabase = Callable[[str], Address]


@pytest.fixture
def new(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[NewDatabase]:
    """Makes addresses of databases that are not there yet, or empty: of a "sqlite" file, or in "postgresql"."""
    names, urls = count(), list[str]()

    def make(kind: str) -> Address:
        if kind == "sqlite":
            return tmp_path / f"{next(names)}.db"
        urls.append(postgresql.create_database())
        return DatabaseURL(urls[-1])

    yield make
    for url in urls:
        postgresql.drop_database(url)


KINDS = ["sqlite", "postgresql"]


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, new: NewDatabase) -> Address:
    """Where nothing is yet."""
    return new(request.param)


@pytest.fixture
def source(new: NewDatabase) -> Path:
    """A file with something of everything."""
    path = new("sqlite")
    assert isinstance(path, Path)
    fill(path)
    return path


def turn(number: int, trajectory: int = 7, **values: Any) -> dict[str, Any]:
    return {
        "trajectory": trajectory, "number": number, "status": "completed", "path": "/v1/chat/completions",
        "http_status": 200, "content_type": "application/json", "error": None, "arrived_at": 1, "first_byte_at": 2,
        "ended_at": 3, "request": b"\x00\xff ask", "response": bytes(range(256)), **values,
    }  # fmt: skip


def fill(path: Path) -> None:
    database = SQLite(path, "normal")
    database.open()
    sealed = {"created_at": 1, "completed_at": 1 << 50, "status": "ready", "completion": "ready"}
    rewarded = {**sealed, "status": "reward-received", "rewards": [1.0, 0.1, 1e300, -0.0], "rewarded_at": 3}
    with database.begin() as connection:
        connection.execute(insert(known_jobs), [{"job_arn": f"{JOB_ARN}-{n}", "created_at": n} for n in range(5)])
        connection.execute(insert(trajectories), {"id": 7, "job_arn": JOB_ARN, "trajectory_id": "ä 🦊", **rewarded})
        connection.execute(insert(trajectories), {"id": 1 << 40, "job_arn": JOB_ARN, "trajectory_id": "s", **sealed})
        execution = dict.fromkeys(("arn", "pipeline", "token", "status", "parameters", "steps", "definition"), "ä 🦊")
        connection.execute(insert(pipeline_executions), {**execution, "created_at": 1, "modified_at": 1 << 50})
        texts = (
            "job_arn", "category", "name", "role_arn", "schema_version", "status", "transitions", "output", "tags",
            "document", "runner",
        )  # fmt: skip
        connection.execute(insert(jobs), {**dict.fromkeys(texts, "ä 🦊"), "id": 9, "created_at": 1, "modified_at": 2})
        rollout = {"job": 9, "part": "train-1", "row": 1 << 30, "trajectory_id": "ä 🦊"}
        connection.execute(insert(job_rollouts), [{**rollout, "member": n, "result": "{}"} for n in range(2)])
        for number in range(3):
            connection.execute(insert(turns), turn(number, error=None if number else "an error"))
        connection.execute(insert(turns), turn(0, 1 << 40, http_status=None, content_type=None, first_byte_at=None))
        token = {"job_arn": JOB_ARN, "parameters": "digest", "trajectory": 7}
        for number in range(3):
            connection.execute(insert(client_tokens), {"operation": "UpdateReward", "token": f"t-{number}", **token})
            connection.execute(insert(client_tokens), {"operation": "CompleteRollout", "token": f"t-{number}", **token})
    database.close()


def content(address: Address) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table; but one column, which a file's server keeps in its head."""
    with reading(address) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(*columns).order_by(*table.primary_key))]
            for table in contents
            for columns in ([column for column in table.c if column.name != "next_number"],)
        }


def ignore(_copied: Copied, _total: int) -> None:
    pass


def is_untouched(address: Address) -> bool:
    """Whether nothing at all is there."""
    if isinstance(address, Path):
        return not list(address.parent.glob(f"{address.name}*[!k]"))  # but the lock
    with engine(address, PATIENT).connect() as connection:
        return inspect(connection).get_table_names() == []


@pytest.mark.parametrize("kind_of_target", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_arrives_as_it_was(source: Path, new: NewDatabase, kind: str, kind_of_target: str) -> None:
    between, target = new(kind), new(kind_of_target)
    copy_database(source, between, ignore)
    counts = copy_database(between, target, ignore)
    assert counts == {
        "known_jobs": 5, "jobs": 1, "job_rollouts": 2, "pipeline_executions": 1,
        "trajectories": 2, "turns": 4, "client_tokens": 6,
    }  # fmt: skip
    assert content(target) == content(source)
    assert check(target) == []


def test_what_does_not_fit_into_memory_at_once_comes_in_pieces(
    source: Path, target: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "BATCH_ROWS", 2)
    monkeypatch.setattr(copy, "BATCH_BYTES", 300)  # fewer than two turns have
    seen: list[tuple[Copied, int]] = []
    copy_database(source, target, lambda copied, total: seen.append((copied, total)))
    assert content(target) == content(source)
    size = len(b"\x00\xff ask") + 256
    assert seen == [(Copied(number, number * size), 4) for number in range(1, 5)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_goes_on_where_the_source_stopped(new: NewDatabase, kind: str, target: Address) -> None:
    file, source = new("sqlite"), new(kind)
    with running_server(Settings(port=0, database=spelled(file))) as server, RawClient(server.url, JOB_ARN) as client:
        for _ in range(3):
            assert client.sample("old", BODY).status == 200
    copy_database(file, source, ignore)
    copy_database(source, target, ignore)
    with running_server(Settings(port=0, database=spelled(target))) as server, RawClient(server.url, JOB_ARN) as client:
        for name in ("old", "new", "old"):
            assert client.sample(name, BODY).status == 200
    assert [turn.number for turn in stored_turns(target, "old")] == [0, 1, 2, 3, 4]
    assert [turn.number for turn in stored_turns(target, "new")] == [0]


def test_a_server_may_go_on_writing_to_the_source(new: NewDatabase) -> None:
    source, target = new("sqlite"), new("postgresql")
    with running_server(Settings(port=0, database=spelled(source))) as server, RawClient(server.url, JOB_ARN) as client:
        assert client.sample("t", BODY).status == 200

        def write_more(_copied: Copied, _total: int) -> None:
            assert client.sample("t", BODY).status == 200

        copy_database(source, target, write_more)
        assert len(stored_turns(source, "t")) == 2
    assert len(stored_turns(target, "t")) == 1


def test_what_is_written_to_a_shared_source_meanwhile_is_not_copied(source: Path, new: NewDatabase) -> None:
    between, target = new("postgresql"), new("sqlite")
    copy_database(source, between, ignore)
    assert isinstance(between, DatabaseURL)

    def write_more(_copied: Copied, _total: int) -> None:
        with engine(between, PATIENT).begin() as connection:
            connection.execute(insert(turns), turn(99))

    before = content(between)
    copy_database(between, target, write_more)
    assert content(target) == before


def test_a_target_that_holds_something_is_refused_and_not_touched(source: Path, target: Address) -> None:
    copy_database(source, target, ignore)
    before = content(target)
    with pytest.raises(DatabaseError, match="is not empty"):
        copy_database(source, target, ignore)
    assert content(target) == before


def test_a_database_is_not_copied_onto_itself(source: Path) -> None:
    before = content(source)
    with pytest.raises(DatabaseError, match="is not empty"):
        copy_database(source, source, ignore)
    assert content(source) == before


def test_a_target_that_a_server_uses_is_refused(source: Path, target: Address) -> None:
    with (
        running_server(Settings(port=0, database=spelled(target))),
        pytest.raises(DatabaseError, match=r"server .*(uses it|has this file open).*stop it"),
    ):
        copy_database(source, target, ignore)


def test_no_server_begins_on_a_target_that_is_being_filled(source: Path, new: NewDatabase) -> None:
    target = new("sqlite")

    def serve(_copied: Copied, _total: int) -> None:
        with (
            pytest.raises(DatabaseError, match="has this file open"),
            running_server(Settings(port=0, database=spelled(target))),
        ):
            pass

    copy_database(source, target, serve)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_copy_that_is_interrupted_leaves_nothing(source: Path, target: Address, failure: type[BaseException]) -> None:
    def fail(_copied: Copied, _total: int) -> None:
        raise failure

    with pytest.raises(failure):
        copy_database(source, target, fail)
    assert is_untouched(target)
    copy_database(source, target, ignore)  # and nothing is in the way of another
    assert content(target) == content(source)


def test_an_empty_database_is_filled_or_left_as_it_was(source: Path, target: Address) -> None:
    database = open_database(target, "full")
    database.open()
    database.close()

    def fail(_copied: Copied, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_database(source, target, fail)
    assert set(map(len, content(target).values())) == {0}
    copy_database(source, target, ignore)
    assert content(target) == content(source)


def test_a_server_that_goes_away_ends_the_copy_in_one_line(
    source: Path, new: NewDatabase, postgresql: PostgreSQL
) -> None:
    target = new("postgresql")

    def restart(_copied: Copied, _total: int) -> None:
        postgresql.restart("immediate")

    with pytest.raises(DatabaseError, match=r"^postgresql://.*nothing was copied$") as caught:
        copy_database(source, target, restart)
    assert "\n" not in str(caught.value)
    assert is_untouched(target)


def test_a_source_that_breaks_off_is_blamed(
    source: Path, new: NewDatabase, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "BATCH_ROWS", 2)
    between, target = new("postgresql"), new("sqlite")
    copy_database(source, between, ignore)
    with pytest.raises(DatabaseError) as caught:
        copy_database(between, target, lambda _copied, _total: postgresql.restart("immediate"))
    assert str(caught.value).startswith(f"{between}: ")
    assert is_untouched(target)


def test_a_source_of_another_revision_is_refused(source: Path, target: Address) -> None:
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '8888'")
    with pytest.raises(DatabaseError, match=r"revision 8888.*upgrade job-runtime-local"):
        copy_database(source, target, ignore)
    assert is_untouched(target)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path, target: Address) -> None:
    with pytest.raises(DatabaseError, match="there is no such database"):
        copy_database(tmp_path / "missing.db", target, ignore)
    assert is_untouched(target)
