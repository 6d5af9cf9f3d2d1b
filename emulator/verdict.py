"""A verdict on how an agent behaved: what it did around errors, and how it ended its rollouts.

By what the database has of its trajectories, and by the calls that `emulator.conduct` remembers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from emulator.calls import MODEL_ERROR, OK, SAMPLING
from emulator.conduct import CallRecord, Conduct
from emulator.documents import format_time
from emulator.store import Store, queries
from emulator.store.queries import TrajectoryFilter, TrajectoryRecord
from emulator.store.schema import now
from emulator.trajectory import Status, TurnStatus

#: What there is to find, and what it means.
KINDS: Mapping[str, str] = {
    "ignored-retry-after": "sent the same request again before Retry-After was over",
    "no-back-off": "sent the same request again at once, after an error that asks for a pause",
    "retried-in-vain": "sent the same request again, although it can never succeed",
    "sampled-after-seal": "asked for a turn although the trajectory was sealed",
    "sealed-while-sampling": "sealed the trajectory while a turn was under way, which was discarded",
    "conflict": "sealed or rewarded a trajectory whose state does not allow it",
    "reward-count": "sent rewards that do not fit the trajectory's turns",
    "never-sampled": "took no turn: No sampling requests were received for this rollout",
    "never-sealed": "left the trajectory open",
    "sealed-without-reward": "completed the trajectory and sent no reward: "
    "The rollout completed but no reward was received in time",
}

#: Seconds: who sends the same request again sooner did not pause. What an AWS SDK sends again by itself is not judged
#: by it: its pauses are random, and may be short.
BACK_OFF = 0.025

#: Of a Retry-After, what clocks and rounding may take.
_SLACK = 0.95

#: Pieces of evidence that are shown of each finding.
EVIDENCE = 10

_AGAIN_LATER = frozenset({"ThrottlingException", "InternalServiceError"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an agent should not have done, in one trajectory."""

    kind: str  #: of KINDS
    job_arn: str
    trajectory_id: str
    count: int = 1  #: how often
    evidence: list[dict[str, Any]] = field(default_factory=list)  #: of the first times: when, and which requests

    def __str__(self) -> str:
        times = "" if self.count == 1 else f" ({self.count} times)"
        return f"{self.trajectory_id}: {self.kind}: {KINDS[self.kind]}{times}"

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.kind,
            "meaning": KINDS[self.kind],
            "job_arn": self.job_arn,
            "trajectory_id": self.trajectory_id,
            "count": self.count,
            "evidence": self.evidence,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in some trajectories; nothing, if the agent behaved."""

    as_of: int
    trajectories: int  #: that were judged
    findings: list[Finding]

    def counts(self) -> dict[str, int]:
        """In how many trajectories what was found."""
        found = [finding.kind for finding in self.findings]
        return {kind: found.count(kind) for kind in KINDS if kind in found}

    def document(self, limit: int | None = None) -> dict[str, Any]:
        """As JSON has it, with so many findings at most."""
        shown = self.findings[:limit]
        return {
            "as_of": format_time(self.as_of),
            "trajectories": self.trajectories,
            "counts": self.counts(),
            "findings": [finding.document() for finding in shown],
            "left_off": len(self.findings) - len(shown),
        }


async def verdict(
    store: Store,
    conduct: Conduct,
    *,
    job_arn: str | None = None,
    trajectory_id: str | None = None,
    rollout_timeout: float = 0.0,
) -> Verdict:
    """Judge what is stored, of one job or trajectory or of all, as of now.

    A trajectory is open, or without reward, for too long once `rollout_timeout` seconds have passed. Raises StoreError.
    """
    return await store.read(
        _judge_stored,
        conduct,
        job_arn=job_arn,
        trajectory_id=trajectory_id,
        rollout_timeout=rollout_timeout,
        as_of=now(),
    )


def _judge_stored(
    connection: Connection,
    conduct: Conduct,
    *,
    job_arn: str | None,
    trajectory_id: str | None,
    rollout_timeout: float,
    as_of: int,
) -> Verdict:
    if trajectory_id is not None:
        records = iter(queries.find_trajectories(connection, trajectory_id, job_arn))
    else:
        records = queries.iterate_trajectories(connection, TrajectoryFilter(job_arn=job_arn))
    findings: list[Finding] = []
    seen = set()
    while page := list(islice(records, 500)):
        counts = queries.count_turns(connection, [record.id for record in page])
        for record in page:
            key = (record.job_arn, record.trajectory_id)
            seen.add(key)
            turns = counts.get(record.id, {})
            findings += judge_rollout(record, turns, as_of=as_of, rollout_timeout=rollout_timeout)
            findings += judge_calls(key, conduct.calls(key))
    for key in list(conduct.trajectories):  # whose trajectories are none: each call of theirs was refused
        if key not in seen and job_arn in (None, key[0]) and trajectory_id in (None, key[1]):
            seen.add(key)
            findings += judge_calls(key, conduct.calls(key))
    return Verdict(as_of, len(seen), findings)


def judge_rollout(
    record: TrajectoryRecord, turns: Mapping[TurnStatus, int], *, as_of: int, rollout_timeout: float
) -> Iterator[Finding]:
    """How a rollout ended, by what is stored of it."""
    key = (record.job_arn, record.trajectory_id)
    late = as_of - int(rollout_timeout * 1e6)
    discarded = turns.get(TurnStatus.DISCARDED, 0)
    sealed = {"sealed_at": format_time(record.completed_at), "status": record.status.value}
    if discarded:
        yield Finding("sealed-while-sampling", *key, discarded, [sealed])
    created = {"created_at": format_time(record.created_at), "as_of": format_time(as_of), "turns": record.turns}
    is_late = record.status is Status.OPEN and record.created_at <= late
    if not turns and (is_late or record.completion is Status.READY):
        yield Finding("never-sampled", *key, 1, [created])
    if is_late:
        yield Finding("never-sealed", *key, 1, [created])
    if record.status is Status.READY and record.completed_at is not None and record.completed_at <= late:
        yield Finding("sealed-without-reward", *key, 1, [{**sealed, "as_of": format_time(as_of)}])


def judge_calls(key: tuple[str, str], calls: Sequence[CallRecord]) -> list[Finding]:
    """What a client did around errors, by its calls in the order in which they ended."""
    found: dict[str, list[dict[str, Any]]] = {}
    for call in calls:
        if call.reason == "InvalidTransition":
            kind = "conflict" if call.code == "ConflictException" else "sampled-after-seal"
            found.setdefault(kind, []).append(_told(call))
        elif call.reason == "TokenReused":
            found.setdefault("conflict", []).append(_told(call))
        elif call.reason == "InvalidRewards":
            found.setdefault("reward-count", []).append(_told(call))
    for failed, again in _retries(calls):
        verdict_on_it = _judge_retry(failed, again)
        if verdict_on_it is not None:
            kind, told = verdict_on_it
            evidence = {
                **_told(failed),
                "again_request_id": again.request_id,
                "again_after": round(again.arrived - failed.ended, 4),
                **told,
            }
            found.setdefault(kind, []).append(evidence)
    return [Finding(kind, *key, len(found[kind]), found[kind][:EVIDENCE]) for kind in KINDS if kind in found]


def _retries(calls: Sequence[CallRecord]) -> Iterator[tuple[CallRecord, CallRecord]]:
    """Each failed call with the one that sent its request again: after it had failed, as others may ask the same."""
    failed: dict[int, list[CallRecord]] = {}
    for call in sorted(calls, key=lambda call: call.arrived):
        waiting = failed.setdefault(call.same, [])
        before = [each for each in waiting if each.ended <= call.arrived]
        if before:
            last = max(before, key=lambda each: each.ended)
            waiting.remove(last)
            yield last, call
        if call.code != OK:
            waiting.append(call)


def _judge_retry(failed: CallRecord, again: CallRecord) -> tuple[str, dict[str, Any]] | None:
    """What is wrong with sending it again, if anything; and what shows it."""
    pause = again.arrived - failed.ended
    asked = seconds_of(failed.retry_after, failed.at) if failed.retry_after else None
    if asked is not None:
        if pause < asked * _SLACK:
            return "ignored-retry-after", {"retry_after": failed.retry_after, "by_sdk": again.is_sdk_retry}
        return None
    if _asks_for_a_pause(failed):
        return ("no-back-off", {}) if pause < BACK_OFF and not again.is_sdk_retry else None
    return ("retried-in-vain", {}) if _can_never_succeed(failed) else None


def _can_never_succeed(failed: CallRecord) -> bool:
    """A sample that is wrong in itself; a job may become known, and what is sealed has a finding of its own."""
    if failed.operation not in SAMPLING or failed.reason is not None:
        return False
    return failed.code == "ValidationException" or (failed.code == MODEL_ERROR and failed.status in (400, 404, 422))


def _asks_for_a_pause(failed: CallRecord) -> bool:
    return failed.code in _AGAIN_LATER or (
        failed.code == MODEL_ERROR and failed.status is not None and (failed.status == 429 or failed.status >= 500)
    )


def seconds_of(retry_after: str, at: int) -> float | None:
    """What a Retry-After that was sent at `at` (microseconds) asks for; None if it cannot be understood."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - at / 1e6)


def _told(call: CallRecord) -> dict[str, Any]:
    """A call as evidence."""
    return {
        "operation": call.operation,
        "request_id": call.request_id,
        "at": format_time(call.at),
        "code": call.code,
        "message": call.message,
    }
