"""SIGKILL under load, and a disk that is full: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import json
import random
import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead
from pathlib import Path

import pytest

from emulator.store import queries
from emulator.store.database import check, reading
from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.model_servers import PATIENCE, Exchange, model_server
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient
from tests.serving import serving
from tests.stored import stored, stored_turns

KILLS = 50
CHAINS = 2  #: databases that are killed side by side
WORKERS = 4  #: clients of each server

DONE = b"data: [DONE]\n\n"


def answer_to(body: bytes) -> bytes:
    text = b'{"you sent": %b}' % body
    return b"data: " + text + b"\n\n" + DONE if json.loads(body)["stream"] else text


async def echo(exchange: Exchange) -> None:
    answer = answer_to(exchange.body)
    if b"break off" in exchange.body:
        await exchange.head()
        await exchange.chunks([answer])
        exchange.cut()
        return
    if answer.endswith(DONE):
        await exchange.stream([answer[:15], answer[15 : -len(DONE)], DONE])
    else:
        await exchange.answer(answer)


@dataclass(slots=True)
class Told:
    """What the clients of one trajectory know. Each of the lists belongs to one thread at a time."""

    asked: list[bytes] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    seal: str | None = None  #: what was asked for
    sealed: bool = False  #: whether it was acknowledged
    rewards: list[float] | None = None
    rewarded: bool = False


@dataclass(slots=True)
class Round:
    """One life of a server: what its clients were told until it was killed."""

    name: str
    seed: int
    told: dict[str, Told] = field(default_factory=dict)
    first: threading.Event = field(default_factory=threading.Event)

    def work(self, url: str, index: int) -> None:
        """One client, until the server is gone."""
        choose = random.Random(f"{self.seed}-{self.name}-{index}")
        with RawClient(url, JOB_ARN) as client:
            try:
                for number in range(100_000):
                    self._roll_out(client, choose, f"{self.name}-{index}-{number}")
            except (OSError, HTTPException):
                return

    def _roll_out(self, client: RawClient, choose: random.Random, name: str) -> None:
        told = self.told[name] = Told()
        for number in range(choose.randint(1, 4)):
            body = json.dumps({"number": number, "stream": choose.random() < 0.5, "of": name}).encode()
            told.asked.append(body)
            path = choose.choice([SAMPLE, STREAM, CHAT])
            response = client.begin(path, body, client.sample_headers(name))
            received = bytearray()
            while piece := response.read1():
                received += piece
                if received.endswith(DONE):  # many clients stop reading here
                    break
            assert response.status == 200
            assert answer_to(body).startswith(bytes(received))
            if len(received) < len(answer_to(body)):
                raise IncompleteRead(bytes(received))
            told.answered.append(body)
            assert response.read() == b""
            self.first.set()
        if choose.random() < 0.2:
            return
        told.seal = choose.choice(["ready", "failed"])
        told.sealed = client.complete(name, told.seal, token=name).status == 200
        assert told.sealed
        if choose.random() < 0.2:
            return
        told.rewards = [choose.random()] * choose.choice([1, len(told.asked)])
        told.rewarded = client.reward(name, told.rewards, token=name).status == 200
        assert told.rewarded

    def check(self, database: Path) -> None:
        """Whether the database holds what the clients were told, and nothing that none of them has asked for."""
        with reading(database) as connection:
            for name, told in self.told.items():
                found = queries.find_trajectories(connection, name)
                if not found:
                    assert not told.answered, name
                    continue
                (trajectory,) = found
                turns = queries.turns_of(connection, trajectory)
                requests = [turn.request for turn in turns]
                assert requests == told.asked[: len(requests)], name  # one after the other, none twice
                assert len(requests) >= len(told.answered)
                assert [turn.number for turn in turns] == list(range(len(turns)))
                assert {turn.status for turn in turns} <= {TurnStatus.COMPLETED}
                assert [turn.response for turn in turns] == [answer_to(request) for request in requests]
                assert trajectory.completion in ({told.seal} if told.sealed else {None, told.seal})
                assert trajectory.rewards in ([told.rewards] if told.rewarded else [None, told.rewards])
                assert trajectory.status is expected_status(trajectory.completion, trajectory.rewards)

    def go_on(self, url: str) -> None:
        """After the restart every trajectory is still what it was: open ones go on, sealed ones do not."""
        with RawClient(url, JOB_ARN) as client:
            for name, told in list(self.told.items())[:: max(1, len(self.told) // 5)]:
                body = json.dumps({"after": "the crash", "stream": False}).encode()
                if told.sealed:
                    assert client.sample(name, body).status == 400
                    assert client.complete(name, told.seal, token=name).status == 200
                    assert client.complete(name, told.seal).status == 409
                elif told.seal is None:
                    assert client.sample(name, body).status == 200
                if told.rewarded and told.rewards is not None:
                    assert client.reward(name, told.rewards, token=name).status == 200
                    assert client.reward(name, told.rewards).status == 409


def expected_status(completion: Status | None, rewards: list[float] | None) -> Status:
    if completion is None:
        return Status.OPEN
    return completion if rewards is None else Status.REWARD_RECEIVED


def chain_of_crashes(database: Path, model: str, durability: str, seed: int, kills: int) -> list[Round]:
    choose = random.Random(seed)
    rounds: list[Round] = []
    for number in range(kills + 1):
        with serving(database, model, log=database.with_suffix(".log"), durability=durability) as server:
            if rounds:
                rounds[-1].check(database)
                rounds[-1].go_on(server.url)
            if number == kills:
                break
            life = Round(f"round-{number}", seed)
            rounds.append(life)
            with ThreadPoolExecutor(WORKERS) as pool:
                clients = [pool.submit(life.work, server.url, index) for index in range(WORKERS)]
                assert life.first.wait(PATIENCE)
                time.sleep(choose.uniform(0, 0.2))  # waits for nothing: it chooses the moment
                server.kill()
                for client in clients:
                    client.result(PATIENCE)
        assert check(database) == []
    return rounds


def test_what_was_acknowledged_survives_50_kills_under_load(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    with model_server(echo) as model, ThreadPoolExecutor(CHAINS) as pool:
        chains = [
            pool.submit(
                chain_of_crashes, tmp_path / f"{index}.db", model.url, durability, seed + index, KILLS // CHAINS
            )
            for index, durability in enumerate(["full", "normal"])
        ]
        rounds = [life for chain in chains for life in chain.result()]
    assert len(rounds) == KILLS
    told = [each for life in rounds for each in life.told.values()]
    # It was a load, and it was cut off in the middle of everything.
    assert sum(len(each.answered) for each in told) > 20 * KILLS
    assert sum(each.sealed for each in told) > 2 * KILLS
    assert sum(each.rewarded for each in told) > 2 * KILLS
    assert any(len(each.asked) > len(each.answered) for each in told)
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process can be set on Linux only")
def test_a_full_disk_is_an_internal_service_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    database = tmp_path / "t.db"
    big = json.dumps({"stream": False, "padding": "x" * 30_000}).encode()
    big_stream = json.dumps({"stream": True, "padding": "x" * 300_000}).encode()
    with (
        model_server(echo) as model,
        serving(database, model.url, log=tmp_path / "log") as server,
        RawClient(server.url, JOB_ARN) as client,
        RawClient(server.url, JOB_ARN) as other,
    ):
        answered = 0
        for name in ("t", "sealed"):
            assert client.sample(name, big).status == 200
        assert client.complete("sealed").status == 200

        limit_file_size(server.process.pid, 400_000)
        while (reply := client.sample("t", big)).status == 200:
            answered += 1
            assert answered < 100
        assert (reply.status, reply.error) == (500, "InternalServiceError")
        assert "The database could not be written" in reply.message
        for path in (STREAM, CHAT):
            broken = other.begin(path, big_stream, other.sample_headers("t"))
            with pytest.raises(IncompleteRead) as caught:
                broken.read()
            assert DONE not in caught.value.partial
            other.close()
        both = other.begin(STREAM, big_stream.replace(b"xxx", b"break off", 1), other.sample_headers("t"))
        with pytest.raises(IncompleteRead):
            both.read()
        assert client.sample("new", big_stream).status == 500
        assert len(stored_turns(database, "t")) == answered + 1

        limit_file_size(server.process.pid, resource.RLIM_INFINITY)
        assert client.sample("t", big_stream, STREAM).status == 200
        assert client.complete("t").status == 200
        assert client.reward("t", [0.5] * (answered + 2)).status == 200
        assert client.reward("sealed", [1.0]).status == 200
        assert server.process.poll() is None
        assert "Traceback" not in server.log.read_text()
    trajectory, turns = stored(database, "t")
    assert trajectory.turns == len(turns) == answered + 2
    assert [turn.response for turn in turns] == [answer_to(turn.request) for turn in turns]
    assert stored_turns(database, "new") == []
    assert check(database) == []


def limit_file_size(process: int, size: int) -> None:
    """Let a process make no file larger than this: what it meets is what it would meet on a full disk."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
