"""PostgreSQL's standby takes over in mid-flight: what was acknowledged is there, once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from emulator.address import DatabaseURL
from tests.conftest import JOB_ARN
from tests.deployments import Deployment, serving_together
from tests.model_servers import model_server
from tests.postgresql import PostgreSQL, postgresql_server
from tests.stored import PATIENCE, all_stored, eventually
from tests.test_concurrency import answer_to, ask, echo

CLIENTS = 12


@pytest.fixture
def primary() -> Iterator[PostgreSQL]:
    with postgresql_server() as it:
        yield it


@pytest.fixture
def standby(primary: PostgreSQL) -> Iterator[PostgreSQL]:
    """One that has everything before it is acknowledged."""
    with postgresql_server(primary) as it:
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        eventually(lambda: primary.execute(synchronous) == [(1,)], "a synchronous standby")
        yield it


def test_clients_do_not_notice_that_a_standby_takes_over(primary: PostgreSQL, standby: PostgreSQL) -> None:
    url = primary.create_database()
    either = DatabaseURL(url.replace(f":{primary.port}", f":{primary.port},127.0.0.1:{standby.port}"))
    under_way = threading.Barrier(CLIENTS + 1)
    over = threading.Event()

    def act(deployment: Deployment, index: int) -> list[str]:
        names: list[str] = []
        with deployment.client() as client:
            while not over.is_set() or len(names) < 3:
                names.append(f"{index} {len(names)}")
                for number in range(2):
                    ask(client, names[-1], index, number)
                if len(names) == 1:
                    under_way.wait(PATIENCE)
                assert client.complete(names[-1]).status == 200
                assert client.reward(names[-1], [1.0]).status == 200
        return names

    with model_server(echo) as model, serving_together(either, 2, model=model.url) as deployment:
        with ThreadPoolExecutor(CLIENTS) as pool:
            acting = [pool.submit(act, deployment, index) for index in range(CLIENTS)]
            under_way.wait(PATIENCE)
            primary.stop("immediate")
            standby.execute("SELECT pg_promote()")
            over.set()
            names = [name for each in acting for name in each.result()]
        everything = all_stored(either)
        for name in names:
            trajectory, turns = everything[JOB_ARN, name]
            assert trajectory.rewards == [1.0]
            assert [json.loads(turn.request)["number"] for turn in turns] == [0, 1]
            assert [turn.response for turn in turns] == [answer_to(turn.request) for turn in turns]
