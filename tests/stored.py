"""What a database holds, as another process reads it, whether a server has it open or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from emulator.address import Address, DatabaseURL
from emulator.store import queries
from emulator.store.database import read_engine
from emulator.store.queries import TrajectoryFilter, TrajectoryRecord, TurnRecord

#: No wait takes longer, unless something is broken.
PATIENCE = 30.0


def spelled(database: Address) -> str:
    """An address as a setting, with what is hidden where it is shown."""
    return database.conninfo if isinstance(database, DatabaseURL) else str(database)


def stored(
    database: Address, trajectory_id: str, job_arn: str | None = None
) -> tuple[TrajectoryRecord, list[TurnRecord]]:
    """A trajectory and its turns."""
    with read_engine(database).connect() as connection:
        (trajectory,) = queries.find_trajectories(connection, trajectory_id, job_arn)
        return trajectory, queries.turns_of(connection, trajectory)


def stored_turns(database: Address, trajectory_id: str) -> list[TurnRecord]:
    """The turns of a trajectory; none if there is no such trajectory yet."""
    with read_engine(database).connect() as connection:
        found = queries.find_trajectories(connection, trajectory_id)
        return queries.turns_of(connection, found[0]) if found else []


def iterate_stored(database: Address) -> Iterator[tuple[TrajectoryRecord, list[TurnRecord]]]:
    """Every trajectory with its turns."""
    with read_engine(database).connect() as connection:
        for trajectory in queries.iterate_trajectories(connection, TrajectoryFilter()):
            yield trajectory, queries.turns_of(connection, trajectory)


def all_stored(database: Address) -> dict[tuple[str, str], tuple[TrajectoryRecord, list[TurnRecord]]]:
    """Every trajectory with its turns, by job and id."""
    return {(each.job_arn, each.trajectory_id): (each, turns) for each, turns in iterate_stored(database)}


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for what has no event to wait for: another thread's or process's commit."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain for {what}"
        time.sleep(0.005)


def eventually_stored(database: Address, trajectory_id: str, count: int = 1) -> list[TurnRecord]:
    """The turns of a trajectory once there are so many: for those whose client is not there to hear of it."""
    eventually(lambda: len(stored_turns(database, trajectory_id)) >= count, f"{count} turns")
    return stored_turns(database, trajectory_id)
