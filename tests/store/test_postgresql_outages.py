"""PostgreSQL is away, hangs or refuses for a while: writes wait as long as they may, and then nothing is the matter."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from emulator.address import DatabaseURL
from emulator.store import StoreError, libpq, queries, write_connection
from emulator.trajectory import Status
from tests.conftest import JOB_ARN
from tests.deployments import serving_together
from tests.postgresql import PASSWORD, PostgreSQL, Stop
from tests.postgresql_proxy import Fate, PostgreSQLProxy, is_answered, is_commit, nth
from tests.store.rollouts import busy_writer, end_turn, handed_over, seal, store_on, take_turn
from tests.stored import PATIENCE, eventually, stored, stored_turns

BODY = b'{"messages": [{"role": "user", "content": "What is 2+2?"}]}'

#: Seconds after which writes give up, where a test waits for it.
SOON = 0.5


@pytest.fixture
def url(postgresql_database: DatabaseURL) -> DatabaseURL:
    return postgresql_database


def name_of(url: DatabaseURL) -> str:
    return url.conninfo.rpartition("/")[2]


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_writes_outlive_a_restart(url: DatabaseURL, postgresql: PostgreSQL, how: Stop) -> None:
    async def body() -> None:
        async with store_on(url) as store:
            trajectory, number = await store.begin_turn(JOB_ARN, "t")
            postgresql.stop(how)
            writes = [await handed_over(each) for each in (end_turn(store, trajectory, number), seal(store, "t"))]
            await asyncio.to_thread(postgresql.start)
            await asyncio.gather(*writes)

    asyncio.run(body())
    trajectory, turns = stored(url, "t")
    assert (trajectory.status, len(turns)) == (Status.READY, 1)


def test_who_waits_longer_than_may_be_hears_so_and_later_all_is_well(
    url: DatabaseURL, proxy: PostgreSQLProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with store_on(proxy.url(url), SOON) as store:
            trajectory, number = await store.begin_turn(JOB_ARN, "t")
            proxy.refuse_connections()
            proxy.cut_all()
            for _ in range(2):
                with pytest.raises(StoreError, match="could not be reached"):
                    await end_turn(store, trajectory, number)
            proxy.accept_connections()
            await end_turn(store, trajectory, number)
            await seal(store, "t")

    asyncio.run(body())
    assert len(stored_turns(url, "t")) == 1
    assert "Traceback" not in caplog.text


def test_who_wants_to_read_meanwhile_hears_why_he_cannot(
    url: DatabaseURL, proxy: PostgreSQLProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with store_on(proxy.url(url)) as store:
            await store.begin_turn(JOB_ARN, "t")
            assert len(await store.read(queries.find_trajectories, "t")) == 1
            proxy.refuse_connections()
            proxy.cut_all()
            with pytest.raises(StoreError, match="could not be read"):
                await store.read(queries.find_trajectories, "t")
            proxy.accept_connections()
            assert len(await store.read(queries.find_trajectories, "t")) == 1

    asyncio.run(body())
    assert "Traceback" not in caplog.text


def test_who_reads_patiently_gets_his_answer_when_it_is_back(url: DatabaseURL, proxy: PostgreSQLProxy) -> None:
    async def body() -> None:
        async with store_on(proxy.url(url)) as store:
            await store.begin_turn(JOB_ARN, "t")
            assert len(await store.read(queries.find_trajectories, "t")) == 1
            proxy.refuse_connections()
            proxy.cut_all()
            reading = asyncio.create_task(store.read_patiently(queries.find_trajectories, "t"))
            with pytest.raises(StoreError, match="could not be read"):
                await store.read(queries.find_trajectories, "t")
            assert not reading.done()
            proxy.accept_connections()
            assert len(await reading) == 1

    asyncio.run(body())


def test_who_reads_patiently_hears_at_last_why_he_cannot(url: DatabaseURL, proxy: PostgreSQLProxy) -> None:
    async def body() -> None:
        async with store_on(proxy.url(url), SOON) as store:
            await store.begin_turn(JOB_ARN, "t")
            proxy.refuse_connections()
            proxy.cut_all()
            with pytest.raises(StoreError, match="could not be read"):
                await store.read_patiently(queries.find_trajectories, "t")

    asyncio.run(body())


def test_clients_hear_of_an_internal_error_when_the_time_that_is_set_is_up(
    url: DatabaseURL, proxy: PostgreSQLProxy
) -> None:
    with (
        serving_together(proxy.url(url), 1, model="scripted", database_timeout=SOON) as deployment,
        deployment.client() as client,
    ):
        assert client.sample("t", BODY).status == 200
        proxy.refuse_connections()
        proxy.cut_all()
        for reply in (client.sample("t", BODY), client.complete("t"), client.register("another")):
            assert (reply.status, reply.error) == (500, "InternalServiceError")
            assert "could not be reached" in reply.message
        proxy.accept_connections()
        assert client.sample("t", BODY).status == 200
        assert client.complete("t").status == 200
    assert len(stored_turns(url, "t")) == 2


def test_the_time_of_one_may_be_up_while_others_of_its_batch_go_on_waiting(
    url: DatabaseURL, proxy: PostgreSQLProxy
) -> None:
    async def body() -> None:
        async with store_on(proxy.url(url), 3 * SOON) as store:
            older, younger = await store.begin_turn(JOB_ARN, "older"), await store.begin_turn(JOB_ARN, "a younger one")
            async with busy_writer(store):
                ending = await handed_over(end_turn(store, *older))
                await asyncio.sleep(2 * SOON)  # which makes the other one younger
                younger_ending = await handed_over(end_turn(store, *younger))
                # Begin, mark and commit of what keeps the writer busy come first.
                proxy.once(Fate.IS_LOST, nth(3, is_answered), then_refuse=True)
            with pytest.raises(StoreError, match="could not be reached"):
                await ending
            assert not younger_ending.done()
            proxy.accept_connections()
            await younger_ending

    asyncio.run(body())
    assert (len(stored_turns(url, "older")), len(stored_turns(url, "a younger one"))) == (0, 1)


def test_a_batch_that_may_be_committed_is_not_tried_again_for_the_younger_ones_in_it(
    url: DatabaseURL, proxy: PostgreSQLProxy
) -> None:
    async def body() -> None:
        async with store_on(proxy.url(url), 2 * SOON) as store:
            older = await store.begin_turn(JOB_ARN, "older")
            await take_turn(store, "a younger one")
            async with busy_writer(store):
                ending = await handed_over(end_turn(store, *older))
                await asyncio.sleep(SOON)  # which makes the other one younger
                sealing = await handed_over(seal(store, "a younger one"))
                proxy.once(Fate.LOSES_ITS_ANSWER, nth(1, is_commit), then_refuse=True)
            with pytest.raises(StoreError, match="could not be reached"):
                await ending
            proxy.accept_connections()
            with pytest.raises(StoreError, match="could not be reached"):
                await sealing
            assert await take_turn(store, "older") == 1

    asyncio.run(body())
    assert [turn.number for turn in stored_turns(url, "older")] == [0, 1]
    assert stored(url, "a younger one")[0].status is Status.READY


def test_a_server_that_says_nothing_any_more_is_given_up(
    url: DatabaseURL, proxy: PostgreSQLProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_connection, "GRACE", 2 * SOON)

    async def body() -> None:
        async with store_on(proxy.url(url), SOON) as store:
            for which in (is_answered, is_commit):
                trajectory, number = await store.begin_turn(JOB_ARN, "t")
                proxy.once(Fate.SILENCE, which)
                with pytest.raises(StoreError, match="did not answer in time"):
                    await asyncio.wait_for(end_turn(store, trajectory, number), PATIENCE)
                await end_turn(store, trajectory, number)
            proxy.cut_all()
            proxy.once(Fate.SILENCE, is_answered)  # while it connects
            with pytest.raises(StoreError, match="did not answer in time"):
                await asyncio.wait_for(seal(store, "t"), PATIENCE)
            await seal(store, "t")

    asyncio.run(body())
    trajectory, turns = stored(url, "t")
    assert (trajectory.status, [turn.number for turn in turns]) == (Status.READY, [0, 1])


@contextmanager
def locked(url: DatabaseURL, statement: str) -> Iterator[None]:
    """While somebody else holds locks."""
    with psycopg.connect(url.conninfo) as connection:
        connection.execute(statement.encode())
        yield
        connection.rollback()


def test_a_lock_that_somebody_holds_is_waited_for(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    async def body() -> None:
        async with store_on(url) as store:
            await take_turn(store, "t")
            with locked(url, "SELECT * FROM trajectories FOR UPDATE"):
                sealing = await handed_over(seal(store, "t"))
                query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                waits = lambda: postgresql.execute(query) == [(1,)]  # noqa: E731
                await asyncio.to_thread(eventually, waits, "the writer to wait")
            await sealing

    asyncio.run(body())
    assert stored(url, "t")[0].status is Status.READY


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
def test_a_statement_that_ran_out_of_its_time_is_tried_again(
    url: DatabaseURL, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setitem(libpq.WRITER, limit, "50ms")
    error = f"canceling statement due to {limit.replace('_', ' ')}"
    before = postgresql.log.count(error)

    async def body() -> None:
        async with store_on(url) as store:
            await take_turn(store, "t")
            with locked(url, "SELECT * FROM trajectories FOR UPDATE"):
                sealing = await handed_over(seal(store, "t"))
                again = lambda: postgresql.log.count(error) > before + 2  # noqa: E731
                await asyncio.to_thread(eventually, again, "several attempts")
            await sealing

    asyncio.run(body())
    assert stored(url, "t")[0].status is Status.READY


def test_a_lock_that_is_held_for_too_long_is_an_error_in_time(
    url: DatabaseURL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_connection, "GRACE", 2 * SOON)

    async def body() -> None:
        async with store_on(url, SOON) as store:
            await take_turn(store, "t")
            with locked(url, "SELECT * FROM trajectories FOR UPDATE"):
                with pytest.raises(StoreError):
                    await asyncio.wait_for(seal(store, "t"), PATIENCE)
                await take_turn(store, "another")
            await seal(store, "t")

    asyncio.run(body())
    assert stored(url, "t")[0].status is Status.READY


def test_a_server_that_only_reads_for_a_while_is_waited_for(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    """As one does that was demoted, until another one is in its place."""

    def set_read_only(value: str) -> None:
        postgresql.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        postgresql.execute("SELECT pg_reload_conf()")

    async def body() -> None:
        async with store_on(url) as store:
            await take_turn(store, "t")
            before = pid_of_writer(postgresql, url)
            set_read_only("on")
            try:
                reloaded = lambda: "on" in str(postgresql.execute("SHOW default_transaction_read_only"))  # noqa: E731
                await asyncio.to_thread(eventually, reloaded, "a server that only reads")
                sealing = await handed_over(seal(store, "t"))
                left = lambda: pid_of_writer(postgresql, url) != before  # noqa: E731
                await asyncio.to_thread(eventually, left, "the writer to look for another server")
                assert not sealing.done()
            finally:
                set_read_only("off")
            await sealing

    asyncio.run(body())
    assert stored(url, "t")[0].status is Status.READY


def pid_of_writer(postgresql: PostgreSQL, url: DatabaseURL) -> int | None:
    query = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'job-runtime-local'"
    found = postgresql.execute(query, name_of(url))
    return found[0][0] if found else None


def test_a_server_that_has_no_connection_left_is_waited_for(url: DatabaseURL, postgresql: PostgreSQL) -> None:
    role = f"only_one_{name_of(url)}"
    postgresql.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    postgresql.execute(f"ALTER DATABASE {name_of(url)} OWNER TO {role}")
    theirs = DatabaseURL(re.sub("//postgres:", f"//{role}:", url.conninfo))

    async def body() -> None:
        async with store_on(theirs) as store:
            await take_turn(store, "t")
            postgresql.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
            postgresql.execute("SELECT pg_terminate_backend(%s, 5000)", pid_of_writer(postgresql, url))
            with psycopg.connect(theirs.conninfo):
                sealing = await handed_over(seal(store, "t"))
                refused = lambda: f'too many connections for role "{role}"' in postgresql.log  # noqa: E731
                await asyncio.to_thread(eventually, refused, "a connection that is refused")
            await sealing

    asyncio.run(body())
    assert stored(url, "t")[0].status is Status.READY
    with contextlib.suppress(psycopg.Error):
        postgresql.execute(f"REASSIGN OWNED BY {role} TO postgres", database=name_of(url))


def test_a_store_that_is_closed_while_the_server_is_away_refuses_what_waits(
    url: DatabaseURL, proxy: PostgreSQLProxy
) -> None:
    async def body() -> None:
        async with store_on(proxy.url(url), SOON) as store:
            await take_turn(store, "t")
            proxy.refuse_connections()
            proxy.cut_all()
            sealing = await handed_over(seal(store, "t"))
        with pytest.raises(StoreError, match="could not be reached"):
            await sealing

    asyncio.run(body())
    assert stored(url, "t")[0].status is Status.OPEN
