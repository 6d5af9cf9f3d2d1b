"""Rounds of crashes: an emulator under load is killed, started again, and asked for what it had acknowledged."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead
from pathlib import Path

from emulator.address import Address
from emulator.store import queries
from emulator.store.database import check, reading
from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.model_servers import PATIENCE, Exchange
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient
from tests.serving import serving

WORKERS = 4  #: clients of each server

DONE = b"data: [DONE]\n\n"


def answer_to(body: bytes) -> bytes:
    """What the model says to a request."""
    text = b'{"you sent": %b}' % body
    return b"data: " + text + b"\n\n" + DONE if json.loads(body)["stream"] else text


async def echo(exchange: Exchange) -> None:
    """Answer with the request; streams at once."""
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


async def slow_echo(exchange: Exchange) -> None:
    """Answer with the request; streams slowly enough to be killed in their middle."""
    answer = answer_to(exchange.body)
    if not answer.endswith(DONE):
        await exchange.answer(answer)
        return
    await exchange.head()
    for start in range(0, len(answer) - len(DONE), 10):
        await exchange.chunks([answer[start : min(start + 10, len(answer) - len(DONE))]])
        await asyncio.sleep(0.002)
    await exchange.chunks([DONE])
    await exchange.end()


@dataclass(slots=True)
class Told:
    """What the clients of one trajectory know. Each of the lists belongs to one thread at a time."""

    asked: list[bytes] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)
    received: bytes = b""  #: of the last answer
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
            told.received = b""
            path = choose.choice([SAMPLE, STREAM, CHAT])
            response = client.begin(path, body, client.sample_headers(name))
            while piece := response.read1():
                told.received += piece
                if told.received.endswith(DONE):  # many clients stop reading here
                    break
            assert response.status == 200
            assert answer_to(body).startswith(told.received)
            if len(told.received) < len(answer_to(body)):
                raise IncompleteRead(told.received)
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

    def check(self, database: Address) -> None:
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
    """The status of a trajectory that was sealed so and has these rewards."""
    if completion is None:
        return Status.OPEN
    return completion if rewards is None else Status.REWARD_RECEIVED


def chain_of_crashes(
    database: Address, model: str, *, log: Path, durability: str, seed: int, kills: int
) -> list[Round]:
    """Kill so many emulators, one after the other; what each of their clients was told, and is in the database."""
    choose = random.Random(seed)
    rounds: list[Round] = []
    for number in range(kills + 1):
        with serving(database, model, log=log, durability=durability) as server:
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
