"""The worst moment: what another server inserted is not there when we look, and is there when we write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
import pytest

from emulator.address import DatabaseURL
from emulator.store import Store
from emulator.trajectory import Status, TokenReused
from tests.conftest import JOB_ARN
from tests.postgresql import PostgreSQL
from tests.store.rollouts import seal, store_on, take_turn
from tests.stored import all_stored, eventually, stored

T = TypeVar("T")

#: Writes something, and gives back what came of it, while another server's insertion is committed.
Race = Callable[[str, Callable[[Store], Awaitable[T]]], T]

COLUMNS = "job_arn, trajectory_id, status, created_at, next_number"
TRAJECTORY = f"INSERT INTO trajectories ({COLUMNS}) VALUES ('{{job}}', 't', 'open', 1, 5)"
JOB = "INSERT INTO known_jobs VALUES ('{job}', 1)"
TOKEN = "INSERT INTO client_tokens VALUES ('CompleteRollout', '{job}', 'token', 'other parameters', 2)"


@pytest.fixture
def race(postgresql_database: DatabaseURL, postgresql: PostgreSQL) -> Race[T]:
    def run(insertion: str, write: Callable[[Store], Awaitable[T]]) -> T:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

        async def body() -> T:
            async with store_on(postgresql_database) as store:
                await take_turn(store, "one")
                await take_turn(store, "two")
                with psycopg.connect(postgresql_database.conninfo) as other:
                    other.execute(insertion.format(job=JOB_ARN).encode())
                    writing = asyncio.ensure_future(write(store))
                    waiting = lambda: postgresql.execute(waits) == [(1,)]  # noqa: E731
                    await asyncio.to_thread(eventually, waiting, "our write to wait")
                    other.commit()
                    return await writing

        return asyncio.run(body())

    return run


def test_the_first_turn_of_a_trajectory_that_another_server_creates_is_one_of_its(
    race: Race[tuple[object, int]], postgresql_database: DatabaseURL
) -> None:
    _, number = race(TRAJECTORY, lambda store: store.begin_turn(JOB_ARN, "t"))
    assert number == 5
    assert len(all_stored(postgresql_database)) == 3


def test_a_trajectory_that_another_server_registers_is_registered(
    race: Race[None], postgresql_database: DatabaseURL
) -> None:
    race(TRAJECTORY, lambda store: store.register_trajectory(JOB_ARN, "t"))
    assert stored(postgresql_database, "t")[0].created_at == 1


def test_a_job_that_another_server_registers_is_registered(race: Race[None]) -> None:
    race(JOB, lambda store: store.register_job(JOB_ARN))


def test_a_client_token_that_another_server_takes_is_taken(race: Race[None], postgresql_database: DatabaseURL) -> None:
    with pytest.raises(TokenReused):
        race(TOKEN, lambda store: seal(store, "one", "token"))
    assert stored(postgresql_database, "one")[0].status is Status.OPEN
