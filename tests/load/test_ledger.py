"""The account that load tests rely on: what it has to find, it finds."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.load.conversation import Conversation, digest, model_answer
from tests.load.ledger import Attempt, Ledger, Told, audit

Stored = tuple[TrajectoryRecord, list[TurnRecord]]


def request(number: int) -> bytes:
    return Conversation("t").request(f"t/{number}")


def turn(step: int, **changes: object) -> TurnRecord:
    body = request(step)
    record = TurnRecord(
        number=step,
        status=TurnStatus.COMPLETED,
        path="/v1/chat/completions",
        http_status=200,
        content_type="application/json",
        error=None,
        arrived_at=1,
        first_byte_at=2,
        ended_at=3,
        request=body,
        response=model_answer(body).body,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


TRAJECTORY = TrajectoryRecord(1, JOB_ARN, "t", Status.REWARD_RECEIVED, Status.READY, [1.0, 0.5], 1, 2, 3, turns=2)


def ledger() -> Ledger:
    """Two turns that were answered, one that was not, a seal and rewards."""
    attempts = [Attempt(step, digest(request(step)), is_answered=step < 2) for step in range(3)]
    return Ledger({"t": Told(attempts, "ready", [1.0, 0.5])})


def stored(*turns: TurnRecord, **changes: object) -> list[Stored]:
    return [(replace(TRAJECTORY, **changes), list(turns))]  # type: ignore[arg-type]


def test_what_agrees_is_no_fault() -> None:
    assert audit(ledger(), stored(turn(0), turn(1))).faults == []


def test_a_turn_whose_answer_nobody_saw_may_be_there_or_not() -> None:
    aborted = turn(2, status=TurnStatus.ABORTED, response=b"")
    assert audit(ledger(), stored(turn(0), turn(1), aborted)).faults == []


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("lost", stored(turn(0))),
        ("lost", []),
        ("lost", stored(turn(0), turn(1), completion=None, rewards=None)),
        ("doubled", stored(turn(0), turn(1), turn(1, number=2))),
        ("wrong: t/3 .* nobody sent", stored(turn(0), turn(1), turn(3))),
        ("wrong: u: nobody asked", [*stored(turn(0), turn(1)), *stored(trajectory_id="u")]),
        ("wrong: t/1 .* nobody sent", stored(turn(0), turn(1, request=request(1) + b" "))),
        ("wrong: t/1 .* another's", stored(turn(0), turn(1, response=model_answer(request(0)).body))),
        ("wrong: t/1 .* was answered", stored(turn(0), turn(1, status=TurnStatus.ABORTED, response=b""))),
        ("wrong: t/1 .* before the seal", stored(turn(0), turn(1, status=TurnStatus.DISCARDED))),
        ("wrong: t: turns in another order", stored(turn(1, number=0), turn(0, number=1))),
        ("wrong: t: turns in another order", stored(turn(0), turn(1, number=0))),
        ("wrong: t: failed", stored(turn(0), turn(1), completion=Status.FAILED)),
        (r"wrong: t: ready, \[1.0, 1.0\]", stored(turn(0), turn(1), rewards=[1.0, 1.0])),
        ("wrong: t: 2 rewards for 3 turns", stored(turn(0), turn(1), turn(2))),
    ],
)
def test_what_does_not_agree_is_found(kind: str, found: list[Stored]) -> None:
    faults = audit(ledger(), found).faults
    assert any(re.match(kind, fault) for fault in faults), faults
