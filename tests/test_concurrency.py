"""Many clients at once: nothing lost, nothing doubled, turns in the order in which they arrived."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import IncompleteRead
from itertools import chain
from pathlib import Path
from typing import TypeVar

import pytest

from emulator.server import Server
from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.deployments import KINDS, Deployment, deployed
from tests.model_servers import PATIENCE, ClientLeft, Exchange, Gate, ModelServerThread, model_server
from tests.postgresql import PostgreSQL
from tests.raw_client import CHAT, COMPLETE, SAMPLE, STREAM, RawClient, Reply
from tests.rig import emulator_before
from tests.serving import serving
from tests.stored import all_stored, eventually, stored

CLIENTS = 200
PATHS = (SAMPLE, STREAM, CHAT)

T = TypeVar("T")


def question(client: int, number: int, stream: bool) -> bytes:
    return json.dumps({"client": client, "number": number, "stream": stream, "padding": "x" * client}).encode()


def answer_to(body: bytes) -> bytes:
    text = b'{"you sent": %b}' % body
    return b"data: " + text + b"\n\ndata: [DONE]\n\n" if json.loads(body)["stream"] else text


async def echo(exchange: Exchange) -> None:
    answer = answer_to(exchange.body)
    if answer.startswith(b"data: "):
        await exchange.stream([answer[:20], answer[20:40], answer[40:]])
    else:
        await exchange.answer(answer)


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServerThread]:
    with model_server(echo) as model:
        yield model


@pytest.fixture(scope="module", params=KINDS)
def emulator(
    request: pytest.FixtureRequest,
    model: ModelServerThread,
    tmp_path_factory: pytest.TempPathFactory,
    postgresql: PostgreSQL,
) -> Iterator[Deployment]:
    with deployed(request.param, tmp_path_factory.mktemp("concurrency"), postgresql, model=model.url) as it:
        yield it


def at_once(count: int, act: Callable[[int], T]) -> list[T]:
    """What `count` threads return that all begin at the same moment."""
    barrier = threading.Barrier(count, timeout=PATIENCE)

    def run(index: int) -> T:
        barrier.wait()
        return act(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@dataclass(frozen=True, slots=True)
class Asked:
    """One sample as its client saw it."""

    body: bytes
    sent_at: float
    answered_at: float


def ask(client: RawClient, trajectory: str, index: int, number: int) -> Asked:
    body = question(index, number, stream=(index + number) % 2 == 0)
    sent_at = time.monotonic()
    reply = client.sample(trajectory, body, PATHS[(index + number) % 3])
    answered_at = time.monotonic()
    assert (reply.status, reply.body) == (200, answer_to(body))
    return Asked(body, sent_at, answered_at)


def test_200_clients_on_one_trajectory(emulator: Deployment, model: ModelServerThread) -> None:
    model.behave(echo)
    rounds = 3

    def act(index: int) -> list[Asked]:
        with emulator.client() as client:
            return [ask(client, "shared", index, number) for number in range(rounds)]

    asked = {each.body: each for each in chain.from_iterable(at_once(CLIENTS, act))}
    trajectory, turns = stored(emulator.database, "shared")
    assert trajectory.turns == len(turns) == len(asked) == CLIENTS * rounds
    assert {turn.request for turn in turns} == asked.keys()
    assert all(turn.response == answer_to(turn.request) for turn in turns)
    assert {turn.status for turn in turns} == {TurnStatus.COMPLETED}
    assert [turn.number for turn in turns] == list(range(len(turns)))
    assert Counter(exchange.body for exchange in model.requests) == Counter(asked.keys())
    # No turn stands before one that had been answered before it was sent.
    last_sent = 0.0
    for turn in turns:
        last_sent = max(last_sent, asked[turn.request].sent_at)
        assert asked[turn.request].answered_at > last_sent


def test_200_clients_on_200_trajectories(emulator: Deployment, model: ModelServerThread) -> None:
    model.behave(echo)
    rounds = 3

    def act(index: int) -> list[bytes]:
        name = f"own-{index}"
        with emulator.client() as client:
            bodies = [ask(client, name, index, number).body for number in range(rounds)]
            assert client.complete(name, "failed" if index % 4 == 0 else "ready", token=name).status == 200
            assert client.reward(name, [float(index)] * (rounds if index % 2 else 1), token=name).status == 200
        return bodies

    asked = at_once(CLIENTS, act)
    found = all_stored(emulator.database)
    for index, bodies in enumerate(asked):
        trajectory, turns = found[JOB_ARN, f"own-{index}"]
        assert [(turn.number, turn.request) for turn in turns] == list(enumerate(bodies))
        assert [turn.response for turn in turns] == [answer_to(body) for body in bodies]
        assert trajectory.status is Status.REWARD_RECEIVED
        assert trajectory.completion is (Status.FAILED if index % 4 == 0 else Status.READY)
        assert trajectory.rewards == [float(index)] * (rounds if index % 2 else 1)


def test_turns_are_numbered_as_they_arrive_and_not_as_their_answers_end(
    emulator: Deployment, model: ModelServerThread
) -> None:
    gates = [Gate() for _ in range(5)]

    async def behaviour(exchange: Exchange) -> None:
        await gates[json.loads(exchange.body)["number"]].passed()
        await echo(exchange)

    model.behave(behaviour)
    clients = [emulator.client() for _ in gates]
    with ThreadPoolExecutor(len(gates)) as pool:
        replies = []
        for number, client in enumerate(clients):
            replies.append(pool.submit(client.sample, "reversed", question(0, number, stream=False)))
            model.wait_for_requests(number + 1)
        for gate, reply in zip(reversed(gates), reversed(replies), strict=True):
            gate.open()
            assert reply.result().status == 200
    for client in clients:
        client.close()
    _, turns = stored(emulator.database, "reversed")
    assert [json.loads(turn.request)["number"] for turn in turns] == [0, 1, 2, 3, 4]
    assert [turn.number for turn in turns] == [0, 1, 2, 3, 4]
    assert [turn.ended_at for turn in turns] == sorted((turn.ended_at for turn in turns), reverse=True)


def outcomes(replies: Sequence[Reply]) -> Counter[tuple[int, str | None]]:
    return Counter((reply.status, reply.error) for reply in replies)


def seal_at_once(emulator: Deployment, name: str, count: int, token: str | None = None) -> list[Reply]:
    def act(index: int) -> Reply:
        with emulator.client() as client:
            return client.complete(name, "failed" if index % 2 and token is None else "ready", token)

    return at_once(count, act)


def test_of_concurrent_complete_rollouts_exactly_one_wins(emulator: Deployment, model: ModelServerThread) -> None:
    model.behave(echo)
    for round_ in range(5):
        name = f"sealed-{round_}"
        with emulator.client() as client:
            ask(client, name, 0, 0)
        replies = seal_at_once(emulator, name, 40)
        assert outcomes(replies) == {(200, None): 1, (409, "ConflictException"): 39}
        (winner,) = [index for index, reply in enumerate(replies) if reply.status == 200]
        trajectory, _ = stored(emulator.database, name)
        assert trajectory.completion is (Status.FAILED if winner % 2 else Status.READY)
        others = {reply.message for reply in replies if reply.status != 200}
        assert all("Cannot transition trajectory" in message for message in others)


def test_concurrent_complete_rollouts_with_one_client_token_all_succeed(
    emulator: Deployment, model: ModelServerThread
) -> None:
    model.behave(echo)
    with emulator.client() as client:
        ask(client, "one-token", 0, 0)
    assert outcomes(seal_at_once(emulator, "one-token", 40, token="token")) == {(200, None): 40}


def test_of_concurrent_rewards_exactly_one_wins(emulator: Deployment, model: ModelServerThread) -> None:
    model.behave(echo)
    with emulator.client() as client:
        ask(client, "rewarded", 0, 0)
        assert client.complete("rewarded").status == 200

    def act(index: int) -> Reply:
        with emulator.client() as client:
            return client.reward("rewarded", [float(index)])

    replies = at_once(40, act)
    assert outcomes(replies) == {(200, None): 1, (409, "ConflictException"): 39}
    (winner,) = [index for index, reply in enumerate(replies) if reply.status == 200]
    assert stored(emulator.database, "rewarded")[0].rewards == [float(winner)]


def test_samples_that_race_a_seal_count_or_are_discarded_or_are_refused(
    emulator: Deployment, model: ModelServerThread
) -> None:
    model.behave(echo)
    for round_ in range(5):
        name = f"raced-{round_}"
        with emulator.client() as client:
            ask(client, name, 0, 0)

        def act(index: int, name: str = name) -> Reply:
            with emulator.client() as client:
                if index == 0:
                    return client.complete(name)
                return client.sample(name, question(index, 1, stream=False), PATHS[index % 3])

        seal, *samples = at_once(40, act)
        assert seal.status == 200
        assert outcomes(samples).keys() <= {(200, None), (400, "ValidationException")}
        assert all("not in valid status" in each.message for each in samples if each.status == 400)
        trajectory, turns = stored(emulator.database, name)
        answered = {index for index, reply in enumerate(samples, start=1) if reply.status == 200}
        assert {json.loads(turn.request)["client"] for turn in turns} == answered | {0}
        assert len(turns) == len(answered) + 1
        counted = sum(turn.status is TurnStatus.COMPLETED for turn in turns)
        assert trajectory.turns == counted
        assert {turn.status for turn in turns} <= {TurnStatus.COMPLETED, TurnStatus.DISCARDED}
        with emulator.client() as client:
            assert client.reward(name, [0.5] * counted).status == 200


def test_no_more_samples_are_in_flight_than_may_be_and_those_that_end_make_room(database: Path) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await gate.passed()
        await exchange.answer(b"{}")

    with model_server(behaviour) as model, emulator_before(model, database, max_in_flight=4) as server:

        def act(index: int) -> Reply:
            with RawClient(server.url, JOB_ARN) as client:
                reply = client.sample(f"t-{index}", b"{}")  # each has to be created first
                with refused_lock:
                    refused.append(reply.status)
                    if refused.count(429) == 16:
                        gate.open()
                return reply

        refused: list[int] = []
        refused_lock = threading.Lock()
        replies = at_once(20, act)
        assert outcomes(replies) == {(200, None): 4, (429, "ThrottlingException"): 16}
        assert len(model.requests) == 4
        assert outcomes(at_once(4, act)) == {(200, None): 4}


def test_samples_that_go_wrong_in_any_way_make_room_too(database: Path) -> None:
    async def behaviour(exchange: Exchange) -> None:
        match json.loads(exchange.body)["do"]:
            case "refuse":
                await exchange.answer(b"{}", 400)
            case "break":
                await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
                exchange.cut()
            case "garbage":
                await exchange.send(b"nonsense\r\n\r\n")
                exchange.cut()
            case "wait":
                await exchange.until_client_left()
                raise ClientLeft
            case _:
                await exchange.answer(b"{}")

    with (
        model_server(behaviour) as model,
        emulator_before(model, database, max_in_flight=1) as server,
        RawClient(server.url, JOB_ARN) as client,
    ):
        for path in PATHS:
            for wish in ("refuse", "break", "garbage", "answer"):
                reply_status = status_of(client, path, b'{"do": "%b"}' % wish.encode())
                assert reply_status != 429
            abandoned, asked = model.left, len(model.requests)
            with RawClient(server.url, JOB_ARN) as leaving:
                leaving.send_only(path, b'{"do": "wait"}', leaving.sample_headers("t"))
                model.wait_for_requests(asked + 1)
            model.wait_until_left(abandoned + 1)
            eventually(lambda path=path: status_of(client, path, b'{"do": "answer"}') == 200, "room")  # type: ignore[misc]
        assert client.complete("t").status == 200
        for _ in range(3):
            assert client.sample("t", b'{"do": "answer"}').status == 400


def test_clients_that_leave_at_random_moments_leave_no_trace_but_their_turns(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server keeps at hand stays what the database says, and no room is lost."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    names = [f"t-{number}" for number in range(40)]
    with model_server(echo) as model:

        def leave_often(index: int) -> None:
            choose = random.Random(seed + index)
            for number in range(25):
                name = choose.choice(names)
                with RawClient(server.url, JOB_ARN) as client:
                    if choose.random() < 0.2:
                        body = json.dumps({"TrajectoryId": name}).encode()
                        client.send_only(COMPLETE, body, client.sample_headers(name))
                    else:
                        body = question(index, number, stream=choose.random() < 0.5)
                        client.send_only(choose.choice(PATHS), body, client.sample_headers(name))
                    if choose.random() < 0.5:
                        client.receive_some(choose.randint(0, 100))

        with emulator_before(model, database, max_in_flight=20) as server:
            at_once(20, leave_often)
            with RawClient(server.url, JOB_ARN) as client:
                # Who left without waiting holds its room until the server has noticed.
                eventually(lambda: has_room(server, 20), "room for 20 at once")
                replies = [client.sample(name, question(99, 0, stream=False)) for name in names]
    assert "Traceback" not in caplog.text
    found = all_stored(database)
    for name, reply in zip(names, replies, strict=True):
        trajectory, turns = found[JOB_ARN, name]
        assert reply.status == (200 if trajectory.status is Status.OPEN else 400)
        assert len({turn.number for turn in turns}) == len(turns)
        for turn in turns:
            if turn.status in (TurnStatus.COMPLETED, TurnStatus.DISCARDED):
                assert turn.response == answer_to(turn.request)
            else:
                assert turn.status is TurnStatus.ABORTED
                assert answer_to(turn.request).startswith(turn.response)


def has_room(server: Server, count: int) -> bool:
    def act(index: int) -> Reply:
        with RawClient(server.url, JOB_ARN) as client:
            return client.sample("room", question(index, 0, stream=False))

    return outcomes(at_once(count, act)) == {(200, None): count}


def status_of(client: RawClient, path: str, body: bytes) -> int:
    try:
        return client.sample("t", body, path).status
    except IncompleteRead:
        return 0


def test_more_clients_than_the_shell_lets_a_process_have_open_files(
    database: Path, model: ModelServerThread, tmp_path: Path
) -> None:
    with serving(database, model.url, log=tmp_path / "log", open_files=128) as server, ExitStack() as stack:
        clients = [stack.enter_context(RawClient(server.url, JOB_ARN)) for _ in range(CLIENTS)]
        replies = [client.sample("t", question(0, number, stream=False)) for number, client in enumerate(clients)]
    assert {reply.status for reply in replies} == {200}
