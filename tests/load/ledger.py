"""What clients were told, and whether a database agrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trajectory import TurnStatus
from tests.load.conversation import digest, model_answer


@dataclass(slots=True)
class Attempt:
    """One request for a turn."""

    step: int  #: those of a later step were sent after all of an earlier one had been answered, or given up
    request: str  #: the digest of its body
    is_late: bool = False  #: whether it was on its way together with the seal, and may not count
    is_answered: bool = False


@dataclass(slots=True)
class Told:
    """What the clients of one trajectory know."""

    attempts: list[Attempt] = field(default_factory=list)
    completion: str | None = None  #: as what it was sealed, and that was acknowledged
    rewards: list[float] | None = None  #: those that were acknowledged

    @property
    def answered(self) -> int:
        """How many turns were."""
        return sum(attempt.is_answered for attempt in self.attempts)


@dataclass(slots=True)
class Ledger:
    """What all clients know."""

    told: dict[str, Told] = field(default_factory=dict)  #: by trajectory
    wrong: list[str] = field(default_factory=list)  #: answers that should not have been
    retries: Counter[str] = field(default_factory=Counter)  #: what was asked again, by what came instead of an answer
    seconds: float = 0.0
    slowest: float = 0.0  #: seconds that an agent waited for a turn at most
    delays: list[float] = field(default_factory=list)  #: seconds that plain samples took, beside streams

    @property
    def answered(self) -> int:
        """How many turns were."""
        return sum(told.answered for told in self.told.values())

    @property
    def rate(self) -> float:
        """Answered turns a second."""
        return self.answered / self.seconds

    def add(self, other: Ledger) -> None:
        """Take in what clients know of other trajectories."""
        self.told |= other.told
        self.wrong += other.wrong
        self.retries += other.retries
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)


@dataclass(slots=True)
class Audit:
    """How a database differs from what clients were told."""

    turns: int = 0
    size: int = 0  #: of all requests and responses
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"lost {len(self.lost)}, doubled {len(self.doubled)}, wrong {len(self.wrong)}"

    @property
    def faults(self) -> list[str]:
        """All of them, the first of each kind."""
        kinds = {"lost": self.lost, "doubled": self.doubled, "wrong": self.wrong}
        return [f"{kind}: {fault}" for kind, faults in kinds.items() for fault in faults[:10]]


def audit(ledger: Ledger, stored: Iterable[tuple[TrajectoryRecord, list[TurnRecord]]]) -> Audit:
    """Compare every trajectory of a database with what its clients were told."""
    it = Audit(wrong=list(ledger.wrong))
    untouched = dict(ledger.told)
    for trajectory, turns in stored:
        it.turns += len(turns)
        it.size += sum(len(turn.request) + len(turn.response) for turn in turns)
        told = untouched.pop(trajectory.trajectory_id, None)
        if told is None:
            it.wrong.append(f"{trajectory.trajectory_id}: nobody asked for it")
        else:
            _audit_turns(it, trajectory, turns, told)
            _audit_states(it, trajectory, turns, told)
    it.lost += [f"{name}: all of it" for name, told in untouched.items() if told.answered or told.completion]
    return it


def _audit_turns(it: Audit, trajectory: TrajectoryRecord, turns: list[TurnRecord], told: Told) -> None:
    attempts = {attempt.request: attempt for attempt in told.attempts}
    found: Counter[str] = Counter()
    steps: list[int] = []
    for turn in turns:
        name = f"{trajectory.trajectory_id}/{turn.number} ({turn.status})"
        request = digest(turn.request)
        attempt = attempts.get(request)
        if attempt is None:
            it.wrong.append(f"{name}: nobody sent such a request: {turn.request[-200:]!r}")
            continue
        found[request] += 1
        if attempt.is_answered:
            steps.append(attempt.step)
        is_whole = turn.status in {TurnStatus.COMPLETED, TurnStatus.DISCARDED}
        answer = model_answer(turn.request).body
        if not (turn.response == answer if is_whole else answer.startswith(turn.response)):
            it.wrong.append(f"{name}: another's answer: {turn.response[:200]!r}")
        elif attempt.is_answered and not is_whole:
            it.wrong.append(f"{name}: was answered: {turn.error}")
        elif attempt.is_answered and turn.status is TurnStatus.DISCARDED and not attempt.is_late:
            it.wrong.append(f"{name}: was answered before the seal")
    if len({turn.number for turn in turns}) < len(turns) or steps != sorted(steps):
        it.wrong.append(f"{trajectory.trajectory_id}: turns in another order: {steps}")
    name = trajectory.trajectory_id
    it.lost += [f"{name}: {each}" for each in told.attempts if each.is_answered and each.request not in found]
    it.doubled += [f"{name}: {attempts[each]}, {times} times" for each, times in found.items() if times > 1]


def _audit_states(it: Audit, trajectory: TrajectoryRecord, turns: list[TurnRecord], told: Told) -> None:
    if (trajectory.completion, trajectory.rewards) != (told.completion, told.rewards):
        fault = f"{trajectory.completion}, {trajectory.rewards}, acknowledged {told.completion}, {told.rewards}"
        (it.lost if told.completion and not trajectory.completion else it.wrong).append(
            f"{trajectory.trajectory_id}: {fault}"
        )
    completed = sum(turn.status is TurnStatus.COMPLETED for turn in turns)
    if trajectory.rewards and len(trajectory.rewards) not in {1, completed}:
        it.wrong.append(f"{trajectory.trajectory_id}: {len(trajectory.rewards)} rewards for {completed} turns")
