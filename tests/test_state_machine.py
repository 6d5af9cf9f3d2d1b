"""Hypothesis drives the HTTP server; the pure state machine, with a small memory of client tokens, is its oracle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from emulator.trajectory import (
    Event,
    InvalidRewards,
    InvalidTransition,
    Status,
    TurnStatus,
    check_rewards,
    is_eligible,
    transition,
)
from tests.deployments import KINDS, Deployment, Kind, deployed
from tests.model_servers import Exchange, model_server
from tests.postgresql import PostgreSQL
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient, Reply
from tests.stored import all_stored

JOBS = tuple(f"arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/job-{name}" for name in "ab")

#: What the model does: the status it answers with, and what the service makes of it on /sample.
REFUSALS = {400: (400, "ValidationException"), 429: (429, "ThrottlingException"), 503: (500, "InternalServiceError")}


async def obey(exchange: Exchange) -> None:
    """Answer with the status that the request asks for."""
    wish = json.loads(exchange.body)
    text = b'{"you sent": %b}' % exchange.body
    if wish["status"] != 200:
        await exchange.answer(b'{"error": {"message": "refused as asked"}}', wish["status"])
    elif wish["stream"]:
        await exchange.stream([b"data: " + text + b"\n\n", b"data: [DONE]\n\n"])
    else:
        await exchange.answer(text)


@dataclass(slots=True)
class Expected:
    """What the oracle knows of one trajectory."""

    status: Status = Status.OPEN
    completion: Status | None = None
    rewards: list[float] | None = None
    turns: list[tuple[bytes, TurnStatus]] = field(default_factory=list)

    @property
    def completed_turns(self) -> int:
        return sum(status is TurnStatus.COMPLETED for _, status in self.turns)


Outcome = tuple[int, str | None]
OK: Outcome = (200, None)
CONFLICT: Outcome = (409, "ConflictException")
NOT_FOUND: Outcome = (404, "ResourceNotFoundException")
INVALID: Outcome = (400, "ValidationException")


class Oracle:
    """What the service must answer, from the pure machine."""

    def __init__(self) -> None:
        self.trajectories: dict[tuple[str, str], Expected] = {}
        self._tokens: dict[tuple[str, str, str], object] = {}

    def sample(self, key: tuple[str, str], body: bytes, model_status: int, path: str) -> Outcome:
        expected = self.trajectories.setdefault(key, Expected())
        try:
            transition(key[1], expected.status, Event.SAMPLE)
        except InvalidTransition:
            return INVALID
        expected.turns.append((body, TurnStatus.COMPLETED if model_status == 200 else TurnStatus.FAILED))
        if model_status == 200:
            return OK
        return (model_status, None) if path == CHAT else REFUSALS[model_status]

    def register(self, key: tuple[str, str]) -> Outcome:
        self.trajectories.setdefault(key, Expected())
        return OK

    def complete(self, key: tuple[str, str], status: str | None, token: str | None) -> Outcome:
        completion = Status(status or "ready")
        event = Event.COMPLETE_FAILED if completion is Status.FAILED else Event.COMPLETE_READY

        def change(expected: Expected) -> None:
            expected.status = transition(key[1], expected.status, event)
            expected.completion = completion

        return self._change("complete", key, token, completion, change)

    def reward(self, key: tuple[str, str], rewards: Sequence[float], token: str | None) -> Outcome:
        def change(expected: Expected) -> None:
            target = transition(key[1], expected.status, Event.UPDATE_REWARD)
            check_rewards(rewards, expected.completed_turns)
            expected.status, expected.rewards = target, list(rewards)

        return self._change("reward", key, token, tuple(rewards), change)

    def _change(
        self, operation: str, key: tuple[str, str], token: str | None, parameters: object, change: Any
    ) -> Outcome:
        expected = self.trajectories.get(key)
        if expected is None:
            return NOT_FOUND
        place = (operation, key[0], token or "")
        if token is not None and place in self._tokens:
            return OK if self._tokens[place] == (key[1], parameters) else CONFLICT
        try:
            change(expected)
        except InvalidTransition:
            return CONFLICT
        except InvalidRewards:
            return INVALID
        if token is not None:
            self._tokens[place] = (key[1], parameters)
        return OK


examples = count()

#: Where there are two emulators, each has one.
DOORS = ("this", "that")

jobs = st.sampled_from(JOBS)
doors = st.sampled_from(DOORS)
names = st.sampled_from(["t1", "t2", "t3 é"])
tokens = st.sampled_from([None, None, "token-1", "token-2"])
statuses = st.sampled_from([None, "ready", "failed"])
reward_lists = st.one_of(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0]), max_size=4),
    st.just([float("nan")]),
)


class ServerMachine(RuleBasedStateMachine):
    """One run of Hypothesis: a few trajectories in two jobs, and everything that can be asked of them."""

    deployment: ClassVar[Deployment]

    def __init__(self) -> None:
        super().__init__()
        urls = zip(DOORS, cycle(self.deployment.urls), strict=False)
        self.clients = {(job, door): RawClient(url, job) for door, url in urls for job in JOBS}

    @initialize()
    def begin(self) -> None:
        self.prefix = f"{next(examples)}-"
        self.oracle = Oracle()
        self.sent = count()

    @rule(
        job=jobs,
        door=doors,
        name=names,
        path=st.sampled_from([SAMPLE, STREAM, CHAT]),
        status=st.sampled_from([200, 200, 200, 400, 429, 503]),
        stream=st.booleans(),
    )
    def sample(self, job: str, door: str, name: str, path: str, status: int, stream: bool) -> None:
        body = json.dumps({"number": next(self.sent), "status": status, "stream": stream}).encode()
        reply = self.clients[job, door].sample(self.prefix + name, body, path)
        self.check(reply, self.oracle.sample((job, name), body, status, path))
        if reply.status == 200:
            text = b'{"you sent": %b}' % body
            assert reply.body == (b"data: " + text + b"\n\ndata: [DONE]\n\n" if stream else text)

    @rule(job=jobs, door=doors, name=names)
    def register(self, job: str, door: str, name: str) -> None:
        reply = self.clients[job, door].register(self.prefix + name)
        self.check(reply, self.oracle.register((job, name)))

    @rule(job=jobs, door=doors, name=names, status=statuses, token=tokens)
    def complete(self, job: str, door: str, name: str, status: str | None, token: str | None) -> None:
        reply = self.clients[job, door].complete(self.prefix + name, status, token and self.prefix + token)
        self.check(reply, self.oracle.complete((job, name), status, token))

    @rule(job=jobs, door=doors, name=names, rewards=reward_lists, token=tokens)
    def reward(self, job: str, door: str, name: str, rewards: list[float], token: str | None) -> None:
        reply = self.clients[job, door].reward(self.prefix + name, rewards, token and self.prefix + token)
        self.check(reply, self.oracle.reward((job, name), rewards, token))

    def check(self, reply: Reply, outcome: Outcome) -> None:
        assert (reply.status, reply.error) == outcome, reply.body

    def teardown(self) -> None:
        for client in self.clients.values():
            client.close()
        found = {
            (job, name.removeprefix(self.prefix)): record
            for (job, name), record in all_stored(self.deployment.database).items()
            if name.startswith(self.prefix)
        }
        assert found.keys() == self.oracle.trajectories.keys()
        for key, expected in self.oracle.trajectories.items():
            trajectory, turns = found[key]
            assert (trajectory.status, trajectory.completion, trajectory.rewards, trajectory.turns) == (
                expected.status,
                expected.completion,
                expected.rewards,
                expected.completed_turns,
            )
            assert trajectory.eligible is is_eligible(expected.completion, expected.status)
            assert [(turn.request, turn.status) for turn in turns] == expected.turns
            assert [turn.number for turn in turns] == list(range(len(turns)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_does_what_the_pure_state_machine_says(kind: Kind, tmp_path: Path, postgresql: PostgreSQL) -> None:
    with model_server(obey) as model, deployed(kind, tmp_path, postgresql, model=model.url) as deployment:
        ServerMachine.deployment = deployment
        run_state_machine_as_test(
            ServerMachine,
            settings=settings(
                max_examples=60 if kind == "sqlite" else 30,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
