"""What is exported: trajectories a page at a time, each with its turns when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sqlalchemy import Connection

from emulator.advantages import total_reward
from emulator.documents import read_turn
from emulator.export.conversations import Spoken
from emulator.store import queries
from emulator.store.queries import TrajectoryFilter, TrajectoryRecord, TurnRecord
from emulator.trajectory import TurnStatus

#: Trajectories that are looked up at once; their turns are read one trajectory at a time.
PAGE = 200

#: Which of a trajectory's group a format looks at.
Companions = Literal["none", "eligible", "selected"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which trajectories are exported."""

    which: TrajectoryFilter
    least_reward: float | None = None
    most_reward: float | None = None

    def holds(self, record: TrajectoryRecord) -> bool:
        """Whether the reward is in the range. One without a reward is in no range but the unlimited one."""
        if self.least_reward is None and self.most_reward is None:
            return True
        if record.rewards is None:
            return False
        reward = total_reward(record.rewards)
        return (self.least_reward is None or reward >= self.least_reward) and (
            self.most_reward is None or reward <= self.most_reward
        )


@dataclass(slots=True)
class Tally:
    """What came of an export."""

    trajectories: int = 0
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  #: trajectories or groups without a row, by the reason
    stopped: bool = False  #: set where nobody wants the rest any more

    def __str__(self) -> str:
        """In a few words."""
        left_out = "".join(f"; left out: {count} × {reason}" for reason, count in self.left_out.most_common())
        return f"{self.trajectories} trajectories, {self.rows} rows{left_out}"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A trajectory that is exported."""

    record: TrajectoryRecord
    companions: Sequence[TrajectoryRecord]  #: of its group, oldest first; none if it has no group
    tally: Tally
    connection: Connection

    @property
    def reward(self) -> float | None:
        """As one number."""
        return None if self.record.rewards is None else total_reward(self.record.rewards)

    def turns(self) -> list[TurnRecord]:
        """All of them, read anew each time: so that none stays in memory. Raises DatabaseError."""
        return queries.turns_of(self.connection, self.record)

    def completed(self) -> list[Spoken]:
        """The completed turns, and what they say."""
        return [Spoken(turn, read_turn(turn)) for turn in self.turns() if turn.status is TurnStatus.COMPLETED]

    def companion(self, record: TrajectoryRecord) -> Rollout:
        """Another one of its group."""
        return replace(self, record=record)


def select_rollouts(
    connection: Connection, selection: Selection, companions: Companions, tally: Tally
) -> Iterator[Rollout]:
    """The selected trajectories, oldest first."""
    groups: dict[tuple[str, str], list[TrajectoryRecord]] = {}
    for page in queries.iterate_pages(connection, selection.which, PAGE):
        if companions != "none":
            groups = _groups(connection, selection, companions, page, groups)
        for record in filter(selection.holds, page):
            if tally.stopped:
                return
            tally.trajectories += 1
            group = [] if record.group is None else groups.get((record.job_arn, record.group), [])
            yield Rollout(record, group, tally, connection)
        connection.rollback()  # no transaction lasts longer than a page
        if tally.stopped:
            return


def _groups(
    connection: Connection,
    selection: Selection,
    companions: Companions,
    page: Sequence[TrajectoryRecord],
    before: Mapping[tuple[str, str], list[TrajectoryRecord]],
) -> dict[tuple[str, str], list[TrajectoryRecord]]:
    """The groups of a page; those that the page before had too are not looked up again."""
    wanted = {(record.job_arn, record.group) for record in page if record.group is not None}
    known = {key: records for key, records in before.items() if key in wanted}
    new = [record for record in page if (record.job_arn, record.group) not in known]
    which = TrajectoryFilter(eligible=True) if companions == "eligible" else selection.which
    for key, records in queries.groups_of(connection, new, which).items():
        known[key] = records if companions == "eligible" else list(filter(selection.holds, records))
    return known
