"""The SQLite file: one server at a time, upgraded by itself after a copy, and never harmed when it is refused."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert, literal_column, null

from emulator.address import Address
from emulator.settings import Settings
from emulator.store import DatabaseError
from emulator.store.database import check, open_database, read_engine
from emulator.store.migrations import migrate
from emulator.store.schema import REVISION, metadata, trajectories
from emulator.store.sqlite import SQLite, backup
from emulator.store.statements import Statement
from emulator.testing import running_server
from tests.conftest import JOB_ARN
from tests.raw_client import RawClient
from tests.stored import stored

BODY = b'{"messages": [{"role": "user", "content": "What is 2+2?"}]}'


def serve_once(path: Path) -> None:
    """A server that has taken one turn, and been stopped."""
    with running_server(Settings(port=0, database=str(path))) as server, RawClient(server.url, JOB_ARN) as client:
        assert client.sample("t", BODY).status == 200


def open_and_close(path: Path) -> Path | None:
    """Open a database as a server does; the copy of before, if it was upgraded."""
    it = SQLite(path, "full")
    it.open()
    it.close()
    return it.backup


def query(path: Path, text: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def normalised(path: Path) -> list[tuple[str, str, list[str]]]:
    """What the database says of itself, without the spelling, and the constraints of a table without their order."""
    rows = query(path, "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    found = []
    for kind, name, sql in rows:
        parts = re.split(r",(?![^()]*\))", re.sub(r'[\s"]+', "", str(sql)).lower().removesuffix(")"))
        columns = [part for part in parts if not part.startswith(CONSTRAINTS)]
        found.append((str(kind), str(name), [*columns, *sorted(set(parts) - set(columns))]))
    return sorted(found)


CONSTRAINTS = ("constraint", "primarykey", "foreignkey", "unique", "check")


# Tables


def test_the_migrations_lead_to_exactly_the_tables_of_the_schema(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migrated, created = tmp_path / "migrated.db", tmp_path / "created.db"
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        migrate(connection)
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()
    open_and_close(created)
    assert normalised(migrated) == normalised(created)
    assert query(migrated, "SELECT * FROM alembic_version") == query(created, "SELECT * FROM alembic_version")
    assert query(migrated, "SELECT * FROM alembic_version") == [(REVISION,)]


@pytest.mark.parametrize(
    ("status", "completion", "completed_at", "rewards", "rewarded_at"),
    [
        ("closed", None, None, None, None),
        ("open", "ready", None, None, None),
        ("open", None, 1, None, None),
        ("open", None, None, "[1.0]", None),
        ("ready", None, 1, None, None),
        ("ready", "failed", 1, None, None),
        ("ready", "ready", None, None, None),
        ("failed", "failed", 1, "[1.0]", 1),
        ("reward-received", "ready", 1, None, 1),
        ("reward-received", "ready", 1, "[1.0]", None),
        ("reward-received", None, 1, "[1.0]", 1),
        ("reward-received", "open", 1, "[1.0]", 1),
    ],
)
def test_the_database_itself_refuses_a_state_that_the_table_forbids(
    any_database: Address,
    status: str,
    completion: str | None,
    completed_at: int | None,
    rewards: str | None,
    rewarded_at: int | None,
) -> None:
    database = open_database(any_database, "full")
    database.open()
    statement = Statement(
        insert(trajectories).values(
            job_arn="job", trajectory_id="t", status=status, created_at=1, completion=completion,
            completed_at=completed_at, rewards=null() if rewards is None else literal_column(f"'{rewards}'"),
            rewarded_at=rewarded_at,
        )
    )  # fmt: skip
    with pytest.raises(database.Error, match="status_fits"):
        database.run(lambda transaction: transaction.run(statement), 0)
    database.close()


# One server at a time


def test_a_second_server_on_the_same_file_is_refused_and_told_who_has_it(database: Path) -> None:
    with running_server(Settings(port=0, database=str(database))):
        with (
            pytest.raises(DatabaseError, match=rf"server \(process {os.getpid()}\) has this file open"),
            running_server(Settings(port=0, database=str(database))),
        ):
            pass
        run = subprocess.run(
            [sys.executable, "-m", "emulator", "serve", "--port", "0", "--database", str(database)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 2
    assert f"process {os.getpid()}" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    serve_once(database)  # and now it is free


def test_another_name_of_the_file_does_not_get_round_that(database: Path) -> None:
    link = database.with_name("link.db")
    serve_once(database)
    link.symlink_to(database)
    with (
        running_server(Settings(port=0, database=str(database))),
        pytest.raises(DatabaseError, match="has this file open"),
        running_server(Settings(port=0, database=str(link))),
    ):
        pass


def _hold(path: Path, ready: object) -> None:
    SQLite(path, "full").open()
    ready.set()  # type: ignore[attr-defined]
    signal.pause()


def test_a_server_that_was_killed_leaves_the_file_free(database: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(database, ready), daemon=True)
    process.start()
    assert ready.wait(30)
    with pytest.raises(DatabaseError, match=f"process {process.pid}"):
        SQLite(database, "full").open()
    process.kill()
    process.join()
    open_and_close(database)


# Upgrades


def of_this_version(path: Path) -> bytes:
    """Make a database of this version, with a turn; its bytes."""
    serve_once(path)
    return path.read_bytes()


def test_an_older_database_is_upgraded_when_it_is_opened_after_a_whole_copy(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "t.db"
    of_this_version(path)
    before = dump(path)
    request.getfixturevalue("next_version")
    copy = open_and_close(path)
    assert copy is not None
    assert copy.parent == tmp_path
    assert REVISION in copy.name
    assert dump(copy) == before
    assert query(copy, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "SELECT version_num FROM alembic_version") == [("9999",)]
    assert query(path, "SELECT created_at FROM trajectories") == [(7,)]
    assert query(path, "SELECT request FROM turns") == [(BODY,)]
    assert query(path, "SELECT note FROM jobs") == []
    assert open_and_close(path) is None  # once is enough


def test_a_server_upgrades_an_older_database_by_itself(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "t.db"
    of_this_version(path)
    request.getfixturevalue("next_version")
    with running_server(Settings(port=0, database=str(path))) as server, RawClient(server.url, JOB_ARN) as client:
        assert client.complete("t").status == 200
    assert len(list(tmp_path.glob("t.db.backup-*"))) == 1


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "t.db"
    of_this_version(path)
    before = dump(path)
    folder = request.getfixturevalue("next_version")
    with (folder / "versions" / "9999_next.py").open("a") as file:
        file.write('    op.execute("UPDATE nowhere SET a = 1")\n')
    with pytest.raises(DatabaseError, match="no such table: nowhere"):
        open_and_close(path)
    assert dump(path) == before


def test_a_newer_database_is_refused_with_a_word_on_what_to_do_and_is_not_touched(database: Path) -> None:
    serve_once(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '8888'")
        connection.commit()
    before = database.read_bytes()
    with pytest.raises(DatabaseError, match=r"revision 8888.*upgrade job-runtime-local"):
        SQLite(database, "full").open()
    with pytest.raises(DatabaseError, match="8888"):
        read_engine(database)
    with pytest.raises(DatabaseError, match="8888"), running_server(Settings(port=0, database=str(database))):
        pass
    assert database.read_bytes() == before


def test_a_database_of_something_else_is_refused_and_not_touched(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.commit()
    before = database.read_bytes()
    with pytest.raises(DatabaseError, match=r"belongs to something else.*'theirs'"):
        SQLite(database, "full").open()
    assert database.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_not_touched(database: Path) -> None:
    database.write_bytes(b"a diary, not a database\n" * 100)
    with pytest.raises(DatabaseError, match="not a database") as caught:
        SQLite(database, "full").open()
    assert "\n" not in str(caught.value)
    assert database.read_bytes() == b"a diary, not a database\n" * 100


def test_a_folder_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="No such file or directory") as caught:
        SQLite(tmp_path / "nowhere" / "t.db", "full").open()
    assert "\n" not in str(caught.value)


# Names


@pytest.mark.parametrize("name", ["a?b.db", "a#b.db", "a%41b.db", "a b&c=d.db", "ü🦊.db", "'\".db", ":memory:.db"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    serve_once(path)
    serve_once(path)
    trajectory, turns = stored(path, "t")
    assert trajectory.turns == len(turns) == 2
    assert check(path) == []
    assert {each.name for each in tmp_path.iterdir()} == {name, name + ".lock"}


# Copies


def test_a_copy_of_a_database_that_is_being_served_is_whole(database: Path) -> None:
    target = database.with_name("copy.db")
    with (
        running_server(Settings(port=0, database=str(database))) as server,
        RawClient(server.url, JOB_ARN) as client,
    ):
        for _ in range(5):
            assert client.sample("t", BODY).status == 200
        assert backup(database, target) == target
        assert client.sample("t", BODY).status == 200
    assert stored(target, "t")[0].turns == 5
    assert check(target) == []
    with pytest.raises(DatabaseError, match="exists already"):
        backup(database, target)


def test_damage_is_found(database: Path) -> None:
    serve_once(database)
    assert check(database) == []
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE turns SET trajectory = 99")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE trajectories SET status = 'reward-received'")
        connection.commit()
    problems = "\n".join(check(database))
    assert "CHECK constraint failed in trajectories" in problems
    assert "turns: row 1 refers to nothing" in problems
