"""Two emulators on one PostgreSQL database: whatever goes to either at the same moment is decided by the database."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import IncompleteRead
from itertools import count

import psycopg
import pytest

from emulator.address import DatabaseURL
from emulator.store.database import check
from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.deployments import Deployment, deployed
from tests.model_servers import Exchange, Gate, ModelServerThread, model_server
from tests.postgresql import PostgreSQL, Stop
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient, Reply
from tests.store.rollouts import busy_writer, handed_over, seal, store_on
from tests.stored import PATIENCE, all_stored, eventually, stored, stored_turns
from tests.test_concurrency import PATHS, answer_to, ask, at_once, echo, outcomes, question

CONFLICT = (409, "ConflictException")
OK = (200, None)


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServerThread]:
    with model_server(echo) as model:
        yield model


@pytest.fixture(scope="module")
def both(
    model: ModelServerThread, tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL
) -> Iterator[Deployment]:
    with deployed("two on postgresql", tmp_path_factory.mktemp("both"), postgresql, model=model.url) as it:
        yield it


@pytest.fixture
def here(both: Deployment) -> Iterator[RawClient]:
    with RawClient(both.urls[0], JOB_ARN) as client:
        yield client


@pytest.fixture
def there(both: Deployment) -> Iterator[RawClient]:
    with RawClient(both.urls[1], JOB_ARN) as client:
        yield client


def reset(client: RawClient) -> Reply:
    return client.call("/_emulator/reset")


def test_turns_follow_each_other_wherever_they_are_taken(here: RawClient, there: RawClient, both: Deployment) -> None:
    bodies = [question(0, number, stream=False) for number in range(6)]
    for client, body in zip((here, there, there, here, here, there), bodies, strict=True):
        assert client.sample("t", body).status == 200
    assert [(turn.number, turn.request) for turn in stored_turns(both.database, "t")] == list(enumerate(bodies))


def test_a_turn_that_arrived_first_comes_first_although_its_answer_ends_last(
    here: RawClient, there: RawClient, both: Deployment, model: ModelServerThread
) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        if json.loads(exchange.body)["number"] == 0:
            await gate.passed()
        await echo(exchange)

    model.behave(behaviour)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(here.sample, "slow", question(0, 0, stream=True), STREAM)
        model.wait_for_requests(1)
        assert there.sample("slow", question(0, 1, stream=False)).status == 200
        gate.open()
        assert slow.result().status == 200
    turns = stored_turns(both.database, "slow")
    assert [json.loads(turn.request)["number"] for turn in turns] == [0, 1]
    model.behave(echo)


@pytest.mark.parametrize("path", [SAMPLE, STREAM, CHAT])
def test_a_turn_that_ends_after_the_seal_elsewhere_is_discarded(
    here: RawClient, there: RawClient, both: Deployment, model: ModelServerThread, path: str
) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await gate.passed()
        await echo(exchange)

    name = f"sealed elsewhere {path}"
    assert here.sample(name, question(0, 0, stream=False)).status == 200
    model.behave(behaviour)
    body = question(0, 1, stream=path != SAMPLE)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(here.sample, name, body, path)
        model.wait_for_requests(1)
        assert there.complete(name).status == 200
        gate.open()
        assert (late.result().status, late.result().body) == (200, answer_to(body))
    model.behave(echo)
    assert there.reward(name, [0.5, 0.5]).error == "ValidationException"
    assert here.sample(name, body).error == "ValidationException"
    assert here.reward(name, [0.5]).status == 200
    trajectory, turns = stored(both.database, name)
    assert (trajectory.turns, trajectory.rewards) == (1, [0.5])
    assert [turn.status for turn in turns] == [TurnStatus.COMPLETED, TurnStatus.DISCARDED]


def test_a_client_token_repeats_at_the_other_emulator(here: RawClient, there: RawClient, both: Deployment) -> None:
    assert here.sample("repeated", b'{"stream": false}').status == 200
    for client in (here, there, here):
        assert client.complete("repeated", "failed", token="seal").status == 200
    assert there.complete("repeated", "ready", token="seal").error == "ConflictException"
    for client in (there, here):
        assert client.reward("repeated", [1.0], token="reward").status == 200
    assert here.reward("repeated", [0.0], token="reward").error == "ConflictException"
    trajectory, _ = stored(both.database, "repeated")
    assert (trajectory.completion, trajectory.rewards) == (Status.FAILED, [1.0])


def test_of_one_client_token_for_different_things_at_once_exactly_one_wins(both: Deployment) -> None:
    for round_ in range(10):
        names = [f"token {round_} {index}" for index in range(8)]
        with both.client() as client:
            for name in names:
                assert client.register(name).status == 200

        def act(index: int, names: list[str] = names, token: str = f"one of {round_}") -> Reply:
            with RawClient(both.urls[index % 2], JOB_ARN) as client:
                return client.complete(names[index], token=token)

        replies = at_once(8, act)
        assert outcomes(replies) == {OK: 1, CONFLICT: 7}
        assert all("ClientToken" in reply.message for reply in replies if reply.status == 409)
        found = all_stored(both.database)
        sealed = [found[JOB_ARN, name][0].status is Status.READY for name in names]
        assert sealed == [reply.status == 200 for reply in replies]


def test_what_is_registered_at_both_at_once_is_there_once(both: Deployment) -> None:
    def act(index: int) -> list[Reply]:
        url, replies = both.urls[index % 2], []
        with RawClient(url, JOB_ARN) as client:
            for number in range(10):
                name = f"registered {number}"
                job = json.dumps({"job_arn": f"{JOB_ARN}-{number}"}).encode()
                replies += [client.register(name), client.call("/_emulator/jobs", job)]
                replies += [client.sample(name, question(index, number, stream=False))]
        return replies

    replies = [reply for each in at_once(8, act) for reply in each]
    assert outcomes(replies) == {OK: 8 * 30}
    for number in range(10):
        numbers = [turn.number for turn in stored_turns(both.database, f"registered {number}")]
        assert numbers == list(range(8))


def test_batches_that_meet_the_same_trajectories_in_any_order_do_not_wait_for_each_other_in_a_circle(
    both: Deployment, postgresql: PostgreSQL
) -> None:
    names = [f"crossed {index}" for index in range(30)]
    before = postgresql.log.count("deadlock detected")

    def act(index: int) -> Counter[int]:
        found: Counter[int] = Counter()
        with RawClient(both.urls[index % 2], JOB_ARN) as client:
            for name in sorted(names, key=lambda name: hash((index, name))):
                found[client.sample(name, question(index, 0, stream=False)).status] += 1
                found[client.complete(name, token=name).status] += 1
                found[client.reward(name, [1.0], token=f"{name} reward").status] += 1
        return found

    found = sum(at_once(40, act), Counter[int]())
    assert found.keys() == {200, 400}  # sealed already
    assert postgresql.log.count("deadlock detected") == before
    everything = all_stored(both.database)
    assert {everything[JOB_ARN, name][0].status for name in names} == {Status.REWARD_RECEIVED}


def test_batches_that_do_wait_for_each_other_in_a_circle_are_tried_again(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL
) -> None:
    """By client tokens, which no order of trajectories can keep apart."""
    before = postgresql.log.count("deadlock detected")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    async def body() -> None:
        async with store_on(postgresql_database) as one, store_on(postgresql_database) as other:
            for name in ("a", "b", "c", "d"):
                await one.register_trajectory(JOB_ARN, name)
            with psycopg.connect(postgresql_database.conninfo) as connection:
                # Each batch has its first token, and waits.
                connection.execute("SELECT * FROM trajectories WHERE trajectory_id IN ('b', 'd') FOR UPDATE")
                async with busy_writer(one), busy_writer(other):
                    sealing = [
                        await handed_over(seal(store, name, token))
                        for store, name, token in (
                            (one, "a", "first"), (other, "c", "second"), (one, "b", "second"), (other, "d", "first"),
                        )
                    ]  # fmt: skip
                both_wait = lambda: postgresql.execute(waiting) == [(2,)]  # noqa: E731
                await asyncio.to_thread(eventually, both_wait, "two batches that wait")
            outcomes = await asyncio.gather(*sealing, return_exceptions=True)
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] * 2 + ["TokenReused"] * 2

    asyncio.run(body())
    assert postgresql.log.count("deadlock detected") == before + 1
    sealed = [trajectory for trajectory, _ in all_stored(postgresql_database).values() if trajectory.completion]
    assert len(sealed) == 2


def test_a_reset_at_one_emulator_lets_turns_under_way_at_the_other_fail_and_new_ones_begin_anew(
    here: RawClient, there: RawClient, both: Deployment, model: ModelServerThread
) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await gate.passed()
        await echo(exchange)

    assert here.sample("t", question(0, 0, stream=False)).status == 200
    assert here.complete("another", token="used").error == "ResourceNotFoundException"
    model.behave(behaviour)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(here.sample, "t", question(0, 1, stream=False))
        model.wait_for_requests(1)
        assert reset(there).status == 200
        assert all_stored(both.database) == {}
        gate.open()
        assert late.result().error == "InternalServiceError"
        assert "reset" in late.result().message
    model.behave(echo)
    for number, client in enumerate((here, there, here)):
        assert client.sample("t", question(0, number, stream=False)).status == 200
    numbers = [(turn.number, json.loads(turn.request)["number"]) for turn in stored_turns(both.database, "t")]
    assert numbers == [(0, 0), (1, 1), (2, 2)]


def test_resets_in_the_middle_of_everything_end_and_leave_what_came_after_them(both: Deployment) -> None:
    over = threading.Event()

    def sample(client: RawClient, index: int, number: int) -> int:
        name = f"reset {(index + number) % 10}"
        if number % 5 == 0:
            client.complete(name, token=name)
        try:
            return client.sample(name, question(index, number, stream=number % 2 == 0), PATHS[number % 3]).status
        except IncompleteRead:  # a stream whose turn could not be stored
            return 500

    def act(index: int) -> set[int]:
        found = set()
        with both.client() as client:
            if index == 0:
                found = {reset(client).status for _ in range(5)}
                over.set()
                return found
            for number in count():
                found.add(sample(client, index, number))
                if over.is_set() and 200 in found:
                    break
        return found

    resets, *samples = at_once(20, act)
    assert resets == {200}
    assert set().union(*samples) <= {200, 400, 500}
    assert check(both.database) == []
    with both.client() as client:
        assert reset(client).status == 200
        assert all_stored(both.database) == {}
        ask(client, "reset 0", 0, 0)


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_clients_that_move_between_the_emulators_do_not_notice_that_postgresql_restarts(
    both: Deployment, postgresql: PostgreSQL, how: Stop
) -> None:
    under_way = threading.Barrier(13)
    restarted = threading.Event()

    def act(index: int) -> list[str]:
        names: list[str] = []
        with both.client() as client:
            while not restarted.is_set() or len(names) < 3:
                name = f"{how} {index} {len(names)}"
                names.append(name)
                for number in range(2):
                    ask(client, name, index, number)
                if len(names) == 1:
                    under_way.wait(PATIENCE)
                assert client.complete(name).status == 200
                assert client.reward(name, [1.0]).status == 200
        return names

    with ThreadPoolExecutor(12) as pool:
        acting = [pool.submit(act, index) for index in range(12)]
        under_way.wait(PATIENCE)
        for _ in range(2):
            postgresql.restart(how)
        restarted.set()
        names = [name for each in acting for name in each.result()]
    everything = all_stored(both.database)
    for name in names:
        trajectory, turns = everything[JOB_ARN, name]
        assert trajectory.rewards == [1.0]
        assert [json.loads(turn.request)["number"] for turn in turns] == [0, 1]
        assert [turn.response for turn in turns] == [answer_to(turn.request) for turn in turns]
