"""Many rollouts at once, of which everything goes wrong now and then: nothing is lost, and nothing doubled."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from emulator.faults import Fault
from emulator.server import Server
from tests.clients.aws import runtime_client
from tests.conftest import JOB_ARN
from tests.faults.conftest import Rollout
from tests.stored import eventually

T = TypeVar("T")

ROLLOUTS, TURNS = 40, 4
SEALING = ("CompleteRollout", "UpdateReward")
SAMPLING = ("Sample", "SampleWithResponseStream")


def persistently(call: Callable[[], T]) -> T:
    """Until it succeeds."""
    for _ in range(200):
        with suppress(ClientError, BotoCoreError):
            return call()
    raise AssertionError("200 times in vain")


def ask(client: Any, key: dict[str, str], request: bytes, stream: bool) -> bytes:
    take = client.sample_with_response_stream if stream else client.sample
    answer: bytes = take(**key, Body=request)["Body"].read()
    return answer


def do_rollout(client: Any, name: str) -> list[bytes]:
    """Take some turns, whole ones and streams, whatever it takes; the answers."""
    key = {"JobArn": JOB_ARN, "TrajectoryId": name}
    answers = []
    for turn in range(TURNS):
        stream = turn % 2 == 1
        body = {"messages": [{"role": "user", "content": f"turn {turn} of {name}"}], "stream": stream}
        answers.append(persistently(partial(ask, client, key, json.dumps(body).encode(), stream)))
    persistently(partial(client.complete_rollout, **key, ClientToken=f"seal {name}"))
    persistently(partial(client.update_reward, **key, Rewards=[0.5], ClientToken=f"reward {name}"))
    return answers


def test_every_answer_is_stored_and_every_rollout_ends_once(
    emulator: Server, rollout: Rollout, pauses: list[float]
) -> None:
    for error in ("InternalServiceError", "ThrottlingException"):
        rollout.faults.add(Fault("error", error=error, share=0.1))
    rollout.faults.add(Fault("drop", share=0.1))
    rollout.faults.add(Fault("drop", operation="SampleWithResponseStream", when="during", share=0.1))
    for kind in ("model-down", "model-error", "cut"):
        rollout.faults.add(Fault(kind, share=0.1))
    for operation in SEALING:
        rollout.faults.add(Fault("drop", operation=operation, when="after", share=0.3))
        rollout.faults.add(Fault("error", operation=operation, error="InternalServiceError", when="after", share=0.3))
    lost = [
        rollout.faults.add(Fault("drop", operation=SAMPLING, when="after", share=0.1)),
        rollout.faults.add(Fault("error", operation=SAMPLING, error="InternalServiceError", when="after", share=0.1)),
    ]

    names = [f"{rollout.trajectory_id}-{number}" for number in range(ROLLOUTS)]
    with runtime_client(emulator.url, attempts=2) as client, ThreadPoolExecutor(8) as agents:
        answered = dict(zip(names, agents.map(lambda name: do_rollout(client, name), names), strict=True))

    assert all(given.struck for given in rollout.faults.given)
    completed = 0
    for name, answers in answered.items():
        one = Rollout(emulator, None, {"JobArn": JOB_ARN, "TrajectoryId": name})
        assert one.stored().state == ("reward-received", "ready", [0.5], True)
        stored = [turn.response for turn in one.turns() if turn.status == "completed"]
        completed += len(stored)
        # In their order; between them stand the turns whose answers were lost.
        rest = iter(stored)
        assert all(answer in rest for answer in answers)
    assert completed == ROLLOUTS * TURNS + sum(given.struck for given in lost)
    eventually(lambda: emulator.app.metrics.in_flight == 0, "the end of all turns")
