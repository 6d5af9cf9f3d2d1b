"""A PostgreSQL database: shared by servers, upgraded in one piece, and explained in a line where it cannot be used."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from emulator.address import DatabaseURL
from emulator.store import DatabaseError
from emulator.store.database import Database, DatabaseUnavailable, check, open_database, reading, upgrade
from emulator.store.libpq import PATIENT, engine
from emulator.store.migrations import migrate
from emulator.store.postgresql import size
from emulator.store.schema import REVISION, metadata
from emulator.store.statements import Transaction
from tests.postgresql import PASSWORD, PostgreSQL
from tests.stored import PATIENCE

#: What a database says of its tables; names of sequences and the like follow from them.
CATALOG = """
SELECT table_name::text, column_name, data_type::text, is_nullable::text, column_default
FROM information_schema.columns WHERE table_schema = current_schema()
UNION ALL
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
FROM pg_constraint WHERE connamespace = current_schema()::regnamespace
UNION ALL
SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = current_schema()
"""


@pytest.fixture
def url(postgresql_database: DatabaseURL) -> DatabaseURL:
    return postgresql_database


def execute(url: DatabaseURL, statement: str) -> list[tuple[object, ...]]:
    """Run a statement beside whoever uses the database; its rows."""
    with engine(url, PATIENT).connect() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
        connection.commit()
        return rows


def open_and_close(url: DatabaseURL) -> None:
    database = open_database(url, "full")
    database.open()
    database.close()


@contextmanager
def opened(url: DatabaseURL, durability: str = "full") -> Iterator[Database]:
    """A database as a server has it open."""
    database = open_database(url, durability)
    database.open()
    try:
        yield database
    finally:
        database.close()


def run(database: Database, statement: str) -> list[tuple[object, ...]]:
    """Run a statement on the connection that writes; its rows."""
    deadline = time.monotonic() + PATIENCE

    def rows(transaction: Transaction) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = transaction.driver.execute(statement).fetchall()
        return found

    return database.run(rows, deadline)


def extended(url: DatabaseURL, query: str) -> DatabaseURL:
    return DatabaseURL(f"{url.conninfo}?{query}")


def in_schema(url: DatabaseURL, schema: str) -> DatabaseURL:
    return extended(url, f"options=-csearch_path%3D{schema}")


def catalog(url: DatabaseURL) -> list[tuple[str, ...]]:
    rows = [tuple(str(cell) for cell in row) for row in execute(url, CATALOG)]
    return sorted(row for row in rows if row[0] != "alembic_version")


def refusal(url: DatabaseURL) -> str:
    """Why it cannot be opened; checks that it is one line without the password."""
    with pytest.raises(DatabaseError) as caught:
        open_and_close(url)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert quote(PASSWORD, safe="") not in str(caught.value)
    return str(caught.value)


# Tables


def test_the_migrations_lead_to_exactly_the_tables_of_the_schema(url: DatabaseURL) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    open_and_close(url)
    created = catalog(url)
    assert execute(url, "SELECT version_num FROM alembic_version") == [(REVISION,)]
    execute(url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with engine(url, PATIENT).connect() as connection:
        migrate(connection)
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []
    assert catalog(url) == created
    assert execute(url, "SELECT version_num FROM alembic_version") == [(REVISION,)]
    open_and_close(url)


def test_servers_that_start_at_once_on_an_empty_database_make_its_tables_once(url: DatabaseURL) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(open_and_close, [url] * 8))
    assert execute(url, "SELECT version_num FROM alembic_version") == [(REVISION,)]
    assert check(url) == []


def test_two_schemas_of_one_database_know_nothing_of_each_other(url: DatabaseURL) -> None:
    execute(url, "CREATE TABLE theirs (a int); CREATE SCHEMA one; CREATE SCHEMA two")
    for schema in ("one", "two"):
        open_and_close(in_schema(url, schema))
    execute(url, "INSERT INTO one.known_jobs VALUES ('job', 1)")
    with reading(in_schema(url, "one")) as connection:
        assert connection.scalar(text("SELECT count(*) FROM known_jobs")) == 1
    with reading(in_schema(url, "two")) as connection:
        assert connection.scalar(text("SELECT count(*) FROM known_jobs")) == 0
    assert execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("theirs",)]


def test_a_database_of_something_else_is_refused_and_not_touched(url: DatabaseURL) -> None:
    execute(url, "CREATE TABLE theirs (a int)")
    assert "it has a table 'theirs'" in refusal(url)
    assert execute(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("theirs",)]


def test_a_database_that_cannot_hold_every_text_is_refused(postgresql: PostgreSQL) -> None:
    postgresql.execute("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    assert "its encoding is LATIN1" in refusal(DatabaseURL(postgresql.url("narrow")))


# Upgrades


def of_this_version(url: DatabaseURL) -> None:
    open_and_close(url)
    execute(url, "INSERT INTO trajectories (job_arn, trajectory_id, status, created_at) VALUES ('j', 't', 'open', 1)")


def test_an_older_database_is_upgraded_when_it_is_opened(url: DatabaseURL, request: pytest.FixtureRequest) -> None:
    of_this_version(url)
    request.getfixturevalue("next_version")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: upgrade(url), range(4)))
    assert execute(url, "SELECT version_num FROM alembic_version") == [("9999",)]
    assert execute(url, "SELECT created_at FROM trajectories") == [(7,)]
    open_and_close(url)


def test_turns_of_an_older_database_are_counted_on(url: DatabaseURL) -> None:
    with engine(url, PATIENT).begin() as connection:
        migrate(connection, "0001")
        connection.execute(
            text(
                "INSERT INTO trajectories (job_arn, trajectory_id, status, created_at)"
                " SELECT 'j', 't-' || n, 'open', 1 FROM generate_series(0, 2) AS n;"
                "INSERT INTO turns (trajectory, number, status, path, arrived_at, ended_at, request, response)"
                " SELECT id, n, 'failed', '/', 1, 1, '', '' FROM trajectories, generate_series(0, id - 2) AS n"
            )
        )
    open_and_close(url)
    query = "SELECT trajectory_id, next_number FROM trajectories ORDER BY id"
    assert execute(url, query) == [("t-0", 0), ("t-1", 1), ("t-2", 2)]


def test_a_migration_that_fails_leaves_the_database_as_it_was(url: DatabaseURL, request: pytest.FixtureRequest) -> None:
    of_this_version(url)
    before = catalog(url)
    folder: Path = request.getfixturevalue("next_version")
    with (folder / "versions" / "9999_next.py").open("a") as file:
        file.write('    op.execute("UPDATE nowhere SET a = 1")\n')
    assert re.search(r'upgrading it from revision .* failed.*"nowhere" does not exist.*as it was', refusal(url))
    assert catalog(url) == before
    assert execute(url, "SELECT version_num FROM alembic_version") == [(REVISION,)]
    assert execute(url, "SELECT created_at FROM trajectories") == [(1,)]


def test_an_older_database_that_a_server_uses_is_not_upgraded_under_it(
    url: DatabaseURL, request: pytest.FixtureRequest
) -> None:
    with opened(url):
        request.getfixturevalue("next_version")
        line = refusal(url)
        assert "other servers use it" in line
        assert "job-runtime-local db upgrade" in line
    open_and_close(url)


def test_a_server_notices_that_the_tables_were_upgraded_while_it_was_cut_off(url: DatabaseURL) -> None:
    with opened(url) as database:
        execute(url, "UPDATE alembic_version SET version_num = '9999'")
        execute(url, CUT_OFF)
        with pytest.raises(DatabaseUnavailable, match=f"of revision 9999 now, not {REVISION}"):
            run(database, "SELECT 1")


def test_a_newer_database_is_refused_with_a_word_on_what_to_do(url: DatabaseURL) -> None:
    open_and_close(url)
    execute(url, "UPDATE alembic_version SET version_num = '8888'")
    assert re.search(r"revision 8888.*upgrade job-runtime-local", refusal(url))
    with pytest.raises(DatabaseError, match="8888"), reading(url):
        pass


# Connections


#: Ends the connections of servers, as a restart does.
CUT_OFF = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"

SETTINGS = "SELECT name, setting FROM pg_settings"


def settings_of(connection: Connection) -> dict[str, str]:
    return {row[0]: row[1] for row in connection.execute(text(SETTINGS))}


def test_the_writers_connection_commits_to_the_disk_and_gives_up_in_time(url: DatabaseURL) -> None:
    name = url.conninfo.rpartition("/")[2]
    execute(url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    execute(url, f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with opened(url, "normal") as database:
        found = {str(name): str(setting) for name, setting in run(database, SETTINGS)}
    assert found["synchronous_commit"] == "on"
    assert found["transaction_isolation"] == "read committed"
    assert found["application_name"] == "job-runtime-local"
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        assert 0 < int(found[name]) <= 30_000


def test_a_stronger_promise_of_the_administrators_is_kept(url: DatabaseURL) -> None:
    execute(url, f"ALTER DATABASE {url.conninfo.rpartition('/')[2]} SET synchronous_commit = remote_apply")
    with opened(url) as database:
        assert run(database, "SHOW synchronous_commit") == [("remote_apply",)]


def test_the_url_wins_over_the_environment_and_that_over_what_we_think(
    url: DatabaseURL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGAPPNAME", "from-environment")
    with engine(url, PATIENT).connect() as connection:
        assert settings_of(connection)["application_name"] == "from-environment"
    with engine(extended(url, "application_name=from-url"), PATIENT).connect() as connection:
        assert settings_of(connection)["application_name"] == "from-url"


def test_what_the_url_leaves_out_comes_from_the_environment(
    url: DatabaseURL, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOST": "127.0.0.1", "PORT": postgresql.port, "USER": "postgres", "PASSWORD": PASSWORD}.items():
        monkeypatch.setenv(f"PG{name}", str(value))
    open_and_close(DatabaseURL(f"postgresql:///{url.conninfo.rpartition('/')[2]}"))
    assert check(url) == []


def test_a_socket_does_as_well(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    name, password = url.conninfo.rpartition("/")[2], quote(PASSWORD, safe="")
    query = f"host={postgresql.folder}&port={postgresql.port}&user=postgres&password={password}"
    open_and_close(DatabaseURL(f"postgresql:///{name}?{query}"))
    assert check(url) == []


def test_of_several_hosts_the_one_that_answers_is_taken(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    here = f"@127.0.0.1:{postgresql.port}"
    open_and_close(DatabaseURL(url.conninfo.replace(here, f"@127.0.0.1:1,127.0.0.1:{postgresql.port}")))
    assert check(url) == []


def test_a_writer_connects_again_after_the_server_was_restarted(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    with opened(url) as database:
        postgresql.restart("immediate")
        assert run(database, "SELECT version_num FROM alembic_version") == [(REVISION,)]


def test_readers_only_read_and_outlive_a_restart(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    open_and_close(url)

    async def body() -> None:
        readers = open_database(url, "full").readers()
        try:
            for how in ("fast", "immediate"):
                async with readers.connect() as connection:
                    assert await connection.scalar(text("SELECT count(*) FROM turns")) == 0
                    with pytest.raises(DBAPIError, match="read-only transaction"):
                        await connection.execute(text("DELETE FROM known_jobs"))
                await asyncio.to_thread(postgresql.restart, how)
            async with readers.connect() as connection:
                assert await connection.scalar(text("SELECT count(*) FROM turns")) == 0
        finally:
            await readers.dispose()

    asyncio.run(body())


# What cannot be used


def test_a_server_that_is_not_there_is_refused_with_its_address(url: DatabaseURL) -> None:
    line = refusal(DatabaseURL(re.sub(r":\d+/", ":1/", url.conninfo)))
    assert 'server at "127.0.0.1", port 1 failed: Connection refused' in line
    assert "is the server up" in line


def test_a_wrong_password_is_refused_without_showing_it(url: DatabaseURL) -> None:
    wrong = DatabaseURL(url.conninfo.replace(quote(PASSWORD, safe=""), "wr0ng"))
    line = refusal(wrong)
    assert "password authentication failed" in line
    assert "PGPASSWORD" in line
    assert "wr0ng" not in line


def test_a_database_that_is_not_there_is_refused(url: DatabaseURL) -> None:
    line = refusal(DatabaseURL(url.conninfo + "_not"))
    assert re.search(r'database "\w+_not" does not exist', line)
    assert "createdb" in line


@pytest.mark.parametrize(
    "text_",
    [
        "postgresql://u:s3cret@[::1/n",
        "postgresql://u:s3cret%zz@h/n",
        "postgresql://u:s3cret@h:port/n",
        "postgresql://u:s3cret@h/n?sslmode=perhaps",
        "postgresql://u:s3cret@h/n?a=b=c",
    ],
)
def test_a_url_that_libpq_does_not_understand_is_refused_without_its_password(text_: str) -> None:
    assert "s3cret" not in refusal(DatabaseURL(text_))


def test_a_parameter_that_libpq_does_not_know_is_named() -> None:
    assert '"sslmod"' in refusal(DatabaseURL("postgresql://u:s3cret@h/n?sslmod=require"))


def test_without_a_driver_it_says_what_to_install(url: DatabaseURL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'job-runtime-local[postgresql]'" in refusal(url)


# Checks


def test_what_postgresql_does_not_rely_on_is_found(url: DatabaseURL) -> None:
    open_and_close(url)
    execute(url, "ALTER TABLE turns ADD CONSTRAINT unsure CHECK (number < 10) NOT VALID")
    assert check(url) == ["turns: constraint unsure was never checked"]


def test_damage_is_found(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    open_and_close(url)
    execute(url, "INSERT INTO known_jobs SELECT 'job ' || n, n FROM generate_series(1, 1000) AS n")
    file = postgresql.folder / "data" / str(execute(url, "SELECT pg_relation_filepath('known_jobs')")[0][0])
    postgresql.stop()
    try:
        page = bytearray(file.read_bytes())
        page[4000:4100] = b"\xff" * 100
        file.write_bytes(page)
    finally:
        postgresql.start()
    (problem,) = check(url)
    assert problem.startswith("known_jobs: invalid page in block 0")


def test_the_size_grows_with_what_is_stored(url: DatabaseURL) -> None:
    open_and_close(url)
    with reading(url) as connection:
        before = size(connection)
    execute(url, "INSERT INTO known_jobs SELECT 'job ' || n, n FROM generate_series(1, 10000) AS n")
    with reading(url) as connection:
        assert size(connection) > before > 0
