"""What is found in an agent's conduct, by times and calls that are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import pytest

from emulator.conduct import CALLS, TRAJECTORIES, CallRecord, Conduct
from emulator.store.queries import TrajectoryRecord
from emulator.trajectory import Status, TurnStatus
from emulator.verdict import BACK_OFF, KINDS, Finding, Verdict, judge_calls, judge_rollout, seconds_of
from tests.conftest import JOB_ARN

KEY = (JOB_ARN, "t")
NOON = 1795262400_000000  # 2026-11-21T12:00:00Z
SECOND = 1_000_000

numbers = count()


def a_call(arrived: float, code: str = "ok", **given: object) -> CallRecord:
    """A call that took 10 ms."""
    call = CallRecord(
        operation="Sample",
        request_id=f"r-{next(numbers)}",
        code=code,
        status=None,
        message=None,
        reason=None,
        retry_after=None,
        same=1,
        is_sdk_retry=False,
        arrived=arrived,
        ended=arrived + 0.01,
        at=NOON + int(arrived * SECOND),
    )
    return replace(call, **given)  # type: ignore[arg-type]


def kinds(*calls: CallRecord) -> list[str]:
    return [finding.kind for finding in judge_calls(KEY, calls)]


# Around errors


def test_a_retry_at_once_after_an_error_that_asks_for_a_pause_is_found_with_its_evidence() -> None:
    failed, again = a_call(0, "ThrottlingException", message="Rate exceeded"), a_call(0.012)
    (finding,) = judge_calls(KEY, [failed, again])
    assert (finding.kind, finding.count) == ("no-back-off", 1)
    (evidence,) = finding.evidence
    assert evidence == {
        "operation": "Sample",
        "request_id": failed.request_id,
        "at": "2026-11-21T12:00:00.000000Z",
        "code": "ThrottlingException",
        "message": "Rate exceeded",
        "again_request_id": again.request_id,
        "again_after": 0.002,
    }
    assert str(finding) == "t: no-back-off: sent the same request again at once, after an error that asks for a pause"


@pytest.mark.parametrize(
    ("failed", "pause", "expected"),
    [
        (a_call(0, "ThrottlingException"), BACK_OFF * 0.9, ["no-back-off"]),
        (a_call(0, "ThrottlingException"), BACK_OFF * 1.1, []),
        (a_call(0, "InternalServiceError"), 0.0, ["no-back-off"]),
        (a_call(0, "ModelError", status=429), 0.0, ["no-back-off"]),
        (a_call(0, "ModelError", status=503), 0.0, ["no-back-off"]),
        (a_call(0, "ClientGone"), 0.0, []),
        (a_call(0, "BrokenStream"), 0.0, []),
        (a_call(0, "AccessDeniedException"), 0.0, []),
        (a_call(0, "ServiceQuotaExceededException"), 0.0, []),
        (a_call(0, "ThrottlingException", retry_after="2"), 1.8, ["ignored-retry-after"]),
        (a_call(0, "ThrottlingException", retry_after="2"), 1.99, []),
        (a_call(0, "ThrottlingException", retry_after="2"), 2.1, []),
        (a_call(0, "ModelError", status=429, retry_after="1.5"), 1.0, ["ignored-retry-after"]),
        (a_call(0, "ServiceQuotaExceededException", retry_after="60"), 1.0, ["ignored-retry-after"]),
        (a_call(0, "ThrottlingException", retry_after="0"), 0.0, []),
        (a_call(0, "ThrottlingException", retry_after="Sat, 21 Nov 2026 12:00:05 GMT"), 4.0, ["ignored-retry-after"]),
        (a_call(0, "ThrottlingException", retry_after="Sat, 21 Nov 2026 12:00:05 GMT"), 5.0, []),
        (a_call(0, "ThrottlingException", retry_after="soon"), 0.0, ["no-back-off"]),
        (a_call(0, "ValidationException"), 60.0, ["retried-in-vain"]),
        (a_call(0, "ModelError", status=400), 60.0, ["retried-in-vain"]),
        (a_call(0, "ValidationException", reason="UnknownJob"), 1.0, []),
        (a_call(0, "ValidationException", operation="UpdateReward"), 1.0, []),
        (a_call(0, "ResourceNotFoundException"), 1.0, []),
    ],
    ids=str,
)
def test_what_a_retry_is_worth_depends_on_the_error_and_the_pause(
    failed: CallRecord, pause: float, expected: list[str]
) -> None:
    assert kinds(failed, a_call(failed.ended + pause, operation=failed.operation)) == expected


def test_the_pauses_of_an_sdk_are_its_own_affair_but_not_retry_after() -> None:
    again = a_call(0.011, is_sdk_retry=True)
    assert kinds(a_call(0, "ThrottlingException"), again) == []
    assert kinds(a_call(0, "ThrottlingException", retry_after="2"), again) == ["ignored-retry-after"]


def test_another_request_is_no_retry() -> None:
    assert kinds(a_call(0, "ThrottlingException"), a_call(0.011, same=2)) == []


def test_the_same_request_that_came_before_the_error_was_known_is_no_retry() -> None:
    assert kinds(a_call(0, "ThrottlingException"), a_call(0.005, "ThrottlingException")) == []


def test_each_failed_call_has_one_retry_at_most() -> None:
    # Two ask the same at once and fail; both wait, and ask again.
    calls = [a_call(0, "ThrottlingException"), a_call(0.001, "ThrottlingException"), a_call(1), a_call(1.001)]
    assert kinds(*calls) == []


def test_a_series_of_retries_is_one_finding_with_a_count() -> None:
    calls = [a_call(0.012 * number, "ThrottlingException") for number in range(30)]
    (finding,) = judge_calls(KEY, calls)
    assert finding.count == 29
    assert len(finding.evidence) == 10
    assert "(29 times)" in str(finding)


# What the trajectory does not allow


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (a_call(0, "ValidationException", reason="InvalidTransition"), "sampled-after-seal"),
        (a_call(0, "ConflictException", reason="InvalidTransition", operation="CompleteRollout"), "conflict"),
        (a_call(0, "ConflictException", reason="TokenReused", operation="UpdateReward"), "conflict"),
        (a_call(0, "ValidationException", reason="InvalidRewards", operation="UpdateReward"), "reward-count"),
    ],
    ids=str,
)
def test_what_the_trajectory_does_not_allow_is_found(call: CallRecord, expected: str) -> None:
    assert kinds(call) == [expected]


def test_errors_alone_are_no_fault_of_the_agents() -> None:
    names = ("ValidationException", "ConflictException", "ThrottlingException", "ClientGone", "InternalServiceError")
    assert kinds(*(a_call(number, name, same=number) for number, name in enumerate(names))) == []


# How it ended


def a_rollout(status: Status, completion: Status | None = None, turns: int = 1) -> TrajectoryRecord:
    """One that was created at noon and sealed a minute later."""
    return TrajectoryRecord(
        id=1,
        job_arn=JOB_ARN,
        trajectory_id="t",
        status=status,
        completion=completion,
        rewards=[1.0] if status is Status.REWARD_RECEIVED else None,
        created_at=NOON,
        completed_at=None if completion is None else NOON + 60 * SECOND,
        rewarded_at=None,
        turns=turns,
    )


ONE = {TurnStatus.COMPLETED: 1}


@pytest.mark.parametrize(
    ("rollout", "turns", "expected"),
    [
        (a_rollout(Status.REWARD_RECEIVED, Status.READY), ONE, []),
        (a_rollout(Status.REWARD_RECEIVED, Status.FAILED), ONE, []),
        (a_rollout(Status.FAILED, Status.FAILED), ONE, []),
        (a_rollout(Status.OPEN), ONE, ["never-sealed"]),
        (a_rollout(Status.OPEN, turns=0), {TurnStatus.FAILED: 1}, ["never-sealed"]),
        (a_rollout(Status.OPEN, turns=0), {}, ["never-sampled", "never-sealed"]),
        (a_rollout(Status.READY, Status.READY), ONE, ["sealed-without-reward"]),
        (a_rollout(Status.REWARD_RECEIVED, Status.READY, turns=0), {}, ["never-sampled"]),
        (a_rollout(Status.FAILED, Status.FAILED, turns=0), {}, []),
        (
            a_rollout(Status.REWARD_RECEIVED, Status.READY),
            {TurnStatus.COMPLETED: 1, TurnStatus.DISCARDED: 2},
            ["sealed-while-sampling"],
        ),
    ],
    ids=str,
)
def test_how_a_rollout_ended_is_judged_by_what_is_stored(
    rollout: TrajectoryRecord, turns: Mapping[TurnStatus, int], expected: list[str]
) -> None:
    found = judge_rollout(rollout, turns, as_of=NOON + 600 * SECOND, rollout_timeout=0)
    assert [finding.kind for finding in found] == expected


@pytest.mark.parametrize(
    ("rollout", "late_at", "kind"),
    [
        (a_rollout(Status.OPEN), NOON + 600 * SECOND, "never-sealed"),
        (a_rollout(Status.READY, Status.READY), NOON + 660 * SECOND, "sealed-without-reward"),
    ],
    ids=str,
)
def test_what_is_not_finished_is_no_finding_before_its_time_out(
    rollout: TrajectoryRecord, late_at: int, kind: str
) -> None:
    assert list(judge_rollout(rollout, ONE, as_of=late_at - 1, rollout_timeout=600)) == []
    found = judge_rollout(rollout, ONE, as_of=late_at, rollout_timeout=600)
    assert [finding.kind for finding in found] == [kind]


def test_a_verdict_counts_trajectories_by_finding_and_shows_so_many() -> None:
    findings = [Finding("never-sealed", JOB_ARN, f"t-{number}") for number in range(3)]
    verdict = Verdict(NOON, 4, [*findings, Finding("conflict", JOB_ARN, "t-0", 5)])
    document = verdict.document(limit=2)
    assert document["counts"] == {"conflict": 1, "never-sealed": 3}
    assert (len(document["findings"]), document["left_off"]) == (2, 2)
    assert document["findings"][0]["meaning"] == KINDS["never-sealed"]


def test_retry_after_is_a_number_or_a_date() -> None:
    assert seconds_of("2", NOON) == 2
    assert seconds_of("0.5", NOON) == 0.5
    assert seconds_of("-3", NOON) == 0
    assert seconds_of("Sat, 21 Nov 2026 12:01:00 GMT", NOON) == 60
    assert seconds_of("Sat, 21 Nov 2026 11:00:00 GMT", NOON) == 0
    assert seconds_of("Sat, 21 Nov 2026 12:01:00 -0000", NOON) == 60
    assert seconds_of("later", NOON) is None


# What is remembered


def test_the_last_calls_of_the_last_trajectories_are_remembered() -> None:
    conduct = Conduct()
    assert not conduct.trajectories
    for number in range(TRAJECTORIES + 1):
        conduct.note((JOB_ARN, str(number)), a_call(0, "ThrottlingException"))
    assert (JOB_ARN, "0") not in conduct.trajectories
    assert len(conduct.trajectories) == TRAJECTORIES
    for number in range(CALLS + 5):
        conduct.note((JOB_ARN, "1"), a_call(number))
    assert [call.arrived for call in conduct.calls((JOB_ARN, "1"))] == list(range(5, CALLS + 5))
    conduct.note((JOB_ARN, "new"), a_call(0))
    assert (JOB_ARN, "1") in conduct.trajectories
    assert (JOB_ARN, "2") not in conduct.trajectories
    conduct.clear()
    assert not conduct.trajectories
