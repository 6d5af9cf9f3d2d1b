"""What the trainer asks of an emulator: one interface, and the emulator of its own process behind it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from emulator.completion import read_completion
from emulator.conduct import Conduct
from emulator.store import DatabaseError, Store, StoreError, queries
from emulator.store.database import one_line
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trainer.rollouts import Recorded, TurnTokens
from emulator.trajectory import TrajectoryError, UnknownTrajectory
from emulator.verdict import verdict

#: Of a verdict on a whole job.
MOST_FINDINGS = 1000


class RuntimeGone(Exception):
    """The emulator cannot be reached, or refuses; the message says why."""


class Runtime(Protocol):
    """An emulator, to the trainer. Every function may raise RuntimeGone."""

    endpoint: str  #: where agents reach it
    region: str

    async def register_job(self, job_arn: str) -> None:
        """Make a job known. Again: changes nothing."""

    async def register(self, job_arn: str, trajectory_id: str, *, group: str, instance: str) -> None:
        """Make a rollout known, before its agent is asked; `instance` is JSON. Again: changes nothing."""

    async def settled(self, job_arn: str, trajectory_id: str, *, is_new: bool = False) -> None:
        """Returns when the agent has said that it failed, or has given the rewards.

        `is_new`: it was registered by the caller, and its agent not asked before this has begun to wait.
        """

    async def give_up(self, job_arn: str, trajectory_id: str) -> bool:
        """Seal a trajectory as failed; False if its agent has sealed it."""

    async def recorded(self, job_arn: str, trajectory_id: str) -> Recorded | None:
        """What there is of a trajectory; None if it is unknown."""

    async def verdict(self, job_arn: str) -> dict[str, Any]:
        """How the agents of a job behaved, as a document: `emulator.verdict`."""


class LocalRuntime:
    """The `Runtime` in this process: by way of its store, and told by it when something changes."""

    def __init__(self, store: Store, conduct: Conduct, *, endpoint: str, region: str) -> None:
        """`store` is started, and belongs to the event loop that calls; `conduct` is what its emulator remembers."""
        self.endpoint = endpoint
        self.region = region
        self._store = store
        self._conduct = conduct
        self._engine: Engine | None = None  # not the store's own readers: a thread reads with a third of their work

    async def register_job(self, job_arn: str) -> None:
        """As the protocol has it."""
        try:
            await self._store.register_job(job_arn)
        except StoreError as error:
            raise RuntimeGone(str(error)) from None

    async def register(self, job_arn: str, trajectory_id: str, *, group: str, instance: str) -> None:
        """As the protocol has it."""
        try:
            await self._store.register_trajectory(job_arn, trajectory_id, group=group, instance=instance)
        except (StoreError, TrajectoryError) as error:
            raise RuntimeGone(str(error)) from None

    async def settled(self, job_arn: str, trajectory_id: str, *, is_new: bool = False) -> None:
        """As the protocol has it."""
        try:
            await self._store.settled(job_arn, trajectory_id, is_new=is_new)
        except (StoreError, TrajectoryError) as error:
            raise RuntimeGone(str(error)) from None

    async def give_up(self, job_arn: str, trajectory_id: str) -> bool:
        """As the protocol has it."""
        try:
            return await self._store.give_up(job_arn, trajectory_id)
        except (StoreError, TrajectoryError) as error:
            raise RuntimeGone(str(error)) from None

    async def recorded(self, job_arn: str, trajectory_id: str) -> Recorded | None:
        """As the protocol has it."""
        try:
            if self._store.is_shared:  # by connections that are there, and wait for a database that is away
                found = await self._store.read_patiently(_with_turns, job_arn, trajectory_id)
                return await asyncio.to_thread(_recorded, *found)
            return await asyncio.to_thread(self._look, job_arn, trajectory_id)
        except UnknownTrajectory:
            return None
        except StoreError as error:
            raise RuntimeGone(str(error)) from None
        except (SQLAlchemyError, DatabaseError) as error:
            raise RuntimeGone(f"The database could not be read: {one_line(error)}") from None

    def _look(self, job_arn: str, trajectory_id: str) -> Recorded:
        if self._engine is None:
            self._engine = self._store.read_engine()
        with self._engine.connect() as connection:
            found = _with_turns(connection, job_arn, trajectory_id)
        return _recorded(*found)

    async def verdict(self, job_arn: str) -> dict[str, Any]:
        """As the protocol has it."""
        try:
            return (await verdict(self._store, self._conduct, job_arn=job_arn)).document(MOST_FINDINGS)
        except StoreError as error:
            raise RuntimeGone(str(error)) from None


def _with_turns(connection: Connection, job_arn: str, trajectory_id: str) -> tuple[TrajectoryRecord, list[TurnRecord]]:
    found = queries.find_trajectories(connection, trajectory_id, job_arn)
    if not found:
        raise UnknownTrajectory(job_arn, trajectory_id)
    return found[0], queries.turns_of(connection, found[0])


def _recorded(record: TrajectoryRecord, turns: list[TurnRecord]) -> Recorded:
    return Recorded(record.status, record.completion, tuple(record.rewards or ()), tuple(map(_turn_tokens, turns)))


def _turn_tokens(turn: TurnRecord) -> TurnTokens:
    usage: Any = read_completion(turn.request, turn.response, turn.content_type).usage
    return TurnTokens(turn.status, getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0)
