"""The store's face: what operations and management ask of it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as SQLTimeoutError

from emulator.address import Address
from emulator.metrics import WriterMetrics
from emulator.store import changes, queries
from emulator.store.changes import Key, OpenTrajectory
from emulator.store.database import DatabaseError, one_line, open_database
from emulator.store.libpq import passes
from emulator.store.schema import now
from emulator.store.statements import Transaction
from emulator.store.turns import Turn
from emulator.store.watches import Watches
from emulator.store.writer import StoreError, Writer
from emulator.trajectory import Event, InvalidTransition, Status, TurnStatus, is_settled, transition

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

P = ParamSpec("P")
T = TypeVar("T")

#: Trajectories that are kept at hand, the last opened; another one costs a look into the database.
LAST_OPENED = 10_000

#: Seconds between two attempts to read from a database that cannot be reached.
READ_AGAIN = 0.2

#: Seconds after which who waits for a trajectory looks again, where other processes may have changed it.
LOOK_AGAIN = 2.0


@dataclass(slots=True)
class _Opening:
    """A trajectory that is being looked up, and the turns that wait for it."""

    future: asyncio.Future[OpenTrajectory]
    line: int = 0
    first: int = 0  #: the number of the first in the line, once it is known


class Store:
    """Trajectories, turns and client tokens, in a database."""

    def __init__(
        self,
        path: Address | None,
        *,
        durability: str,
        create_trajectories: bool,
        any_job: bool,
        patience: float = 30.0,
    ) -> None:
        """`path` None: in memory. `create_trajectories`: a first Sample creates; `any_job`: so may any job's.

        `patience`: seconds that a write waits for a database that cannot be reached.
        """
        self._database = open_database(path, durability)
        self._patience = patience
        #: As whom this server does jobs; None: no other can. See `emulator.store.runners`.
        self.runner = uuid4().hex if self._database.is_shared else None
        self.metrics = WriterMetrics()
        self._create_trajectories = create_trajectories
        self._any_job = any_job
        self._last_opened: OrderedDict[Key, OpenTrajectory] = OrderedDict()
        # A turn under way holds its trajectory, so that its numbers go on from one object whatever was opened since.
        self._at_hand: WeakValueDictionary[Key, OpenTrajectory] = WeakValueDictionary()
        self._opening: dict[Key, _Opening] = {}
        self._watches = Watches()
        self._readers: AsyncEngine | None = None
        self._readers_lock = asyncio.Lock()

    @property
    def is_shared(self) -> bool:
        """Whether other servers may write to the same database."""
        return self._database.is_shared

    async def start(self) -> None:
        """Open the database. Raises DatabaseError."""
        self._database.open()
        self._writer = Writer(self._database, patience=self._patience, metrics=self.metrics)

    async def aclose(self) -> None:
        """Commit what is waiting and let the file go."""
        await self._writer.aclose()
        if self._readers is not None:
            await self._readers.dispose()
        self._database.close()

    def read_engine(self) -> Engine:
        """An engine that reads from any thread, where `read` wants the event loop's."""
        return self._database.read_engine()

    async def begin_turn(self, job_arn: str, trajectory_id: str) -> tuple[OpenTrajectory, int]:
        """The trajectory and the number of a turn that arrives now.

        Raises UnknownJob, UnknownTrajectory, InvalidTransition, StoreError.
        """
        key = (job_arn, trajectory_id)
        if self._database.is_shared:
            return await self.write(key, changes.take_number, **self._creating(key))
        trajectory = self._last_opened.get(key) or self._at_hand.get(key)
        if trajectory is None:
            return await self._open(key)
        transition(trajectory_id, trajectory.status, Event.SAMPLE)
        return trajectory, trajectory.take_number()

    async def end_turn(self, trajectory: OpenTrajectory, turn: Turn) -> TurnStatus:
        """Store a turn; returns when it is committed, and as what. A completed one is discarded after the seal.

        Raises StoreError.
        """
        await self._writer.append(trajectory.key, turn)
        # Those who wait for commits go on in the order of the writes: a seal before this turn is known by now.
        is_late = turn.status == TurnStatus.COMPLETED and trajectory.status is not Status.OPEN
        return TurnStatus.DISCARDED if is_late else TurnStatus(turn.status)

    async def complete_rollout(
        self, *, job_arn: str, trajectory_id: str, completion: Status, client_token: str | None
    ) -> None:
        """Seal a trajectory as ready or failed.

        Raises UnknownJob, UnknownTrajectory, InvalidTransition, TokenReused, StoreError.
        """
        await self._move(
            changes.complete_rollout,
            job_arn=job_arn,
            trajectory_id=trajectory_id,
            completion=completion,
            client_token=client_token,
        )

    async def update_reward(
        self, *, job_arn: str, trajectory_id: str, rewards: Sequence[float], client_token: str | None
    ) -> None:
        """Give a sealed trajectory its rewards.

        Raises UnknownJob, UnknownTrajectory, InvalidTransition, InvalidRewards, TokenReused, StoreError.
        """
        await self._move(
            changes.update_reward,
            job_arn=job_arn,
            trajectory_id=trajectory_id,
            rewards=rewards,
            client_token=client_token,
        )

    async def register_job(self, job_arn: str) -> None:
        """Make a job known. Raises StoreError."""
        await self.write((job_arn, ""), changes.register_job, job_arn=job_arn, now=now())

    async def register_trajectory(
        self, job_arn: str, trajectory_id: str, *, group: str | None = None, instance: str | None = None
    ) -> None:
        """Create a trajectory before its first Sample, as a dispatcher does. Again: changes nothing.

        `group`: what it shares with the other rollouts of its prompt; `instance`: the dataset's row, in JSON.
        Raises UnknownJob, StoreError.
        """
        await self.write(
            (job_arn, trajectory_id),
            changes.register_trajectory,
            job_arn=job_arn,
            trajectory_id=trajectory_id,
            group=group,
            instance=instance,
            any_job=self._any_job,
            now=now(),
        )

    async def give_up(self, job_arn: str, trajectory_id: str) -> bool:
        """Seal a trajectory as failed in place of its agent; False if it was sealed already.

        Raises UnknownJob, UnknownTrajectory, StoreError.
        """
        try:
            await self.complete_rollout(
                job_arn=job_arn, trajectory_id=trajectory_id, completion=Status.FAILED, client_token=None
            )
        except InvalidTransition:
            return False
        return True

    async def settled(self, job_arn: str, trajectory_id: str, *, is_new: bool = False) -> None:
        """Returns when the agent has settled a trajectory (see `is_settled`), or `end_waiting` was called.

        `is_new`: nobody has settled it yet, which saves a look. Raises UnknownTrajectory, StoreError.
        """
        key = (job_arn, trajectory_id)
        look_again = LOOK_AGAIN if self._database.is_shared else None
        with self._watches.watching(key) as settled:
            if is_new:
                await asyncio.wait((settled,), timeout=look_again)
            while not settled.done() and not is_settled(await self.read_patiently(queries.status_of, *key)):
                await asyncio.wait((settled,), timeout=look_again)

    def end_waiting(self) -> None:
        """Have everybody return who waits in `settled`: the server is stopping."""
        self._watches.end()

    async def has_jobs(self) -> bool:
        """Whether there are jobs, or executions of pipelines. Raises StoreError.

        By the writer's connection: to open another one takes as long as all of a server's start.
        """
        return await self.write(("", ""), changes.has_jobs)

    async def reset(self) -> None:
        """Forget everything; a turn under way finds its trajectory gone, and fails. Raises StoreError."""

        def forget(reset: asyncio.Future[None]) -> None:
            if reset.exception() is None:
                self._last_opened.clear()
                self._at_hand.clear()

        reset = self._writer.change(("", ""), changes.reset)
        reset.add_done_callback(forget)
        await asyncio.shield(reset)

    async def write(
        self, key: Key, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a change of `emulator.store.changes` or `.jobs` in a transaction; what concerns one key is done in order.

        Raises StoreError, and what it raises.
        """
        return await self._writer.change(key, lambda transaction: change(transaction, *args, **kwargs))

    async def read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query of `emulator.store.queries` on a read-only connection. Raises StoreError, and what it raises."""
        # To its end, although whoever asked is cancelled: a statement left in the middle would keep its lock.
        reading = asyncio.create_task(self._read(lambda connection: query(connection, *args, **kwargs)))
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(reading)

    async def read_patiently(
        self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `read`; where the database cannot be reached, it is tried again as long as a write is."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return await self.read(query, *args, **kwargs)
            except StoreError as error:
                if not self.is_shared or time.monotonic() >= deadline or not _passes(error.__cause__):
                    raise
            await asyncio.sleep(READ_AGAIN)

    async def _read(self, query: Callable[[Connection], T]) -> T:
        if self._readers is None:
            async with self._readers_lock:
                if self._readers is None:
                    self._readers = await asyncio.to_thread(self._database.readers)
        try:
            async with self._readers.connect() as connection:
                return await connection.run_sync(query)
        except SQLAlchemyError as error:
            raise StoreError(f"The database could not be read: {one_line(error)}") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only connection for a thread of the caller's, who reads as long as it takes. Raises StoreError."""
        try:
            with self._database.read_engine().connect() as connection:
                yield connection
        except (SQLAlchemyError, DatabaseError) as error:
            raise StoreError(f"The database could not be read: {one_line(error)}") from error

    async def _open(self, key: Key) -> tuple[OpenTrajectory, int]:
        """Look a trajectory up, once for all turns that arrive meanwhile: each has its place in the line."""
        opening = self._opening.get(key)
        if opening is None:
            future = self._writer.change(key, partial(changes.open_trajectory, **self._creating(key)))
            opening = self._opening[key] = _Opening(future)
            future.add_done_callback(lambda _: self._opened(key, opening))
        place = opening.line
        opening.line += 1
        trajectory = await asyncio.shield(opening.future)
        self._opened(key, opening)
        transition(key[1], trajectory.status, Event.SAMPLE)
        return trajectory, opening.first + place

    def _opened(self, key: Key, opening: _Opening) -> None:
        """Have at hand what was opened; who arrives from now on comes after the line."""
        if self._opening.get(key) is not opening:
            return
        del self._opening[key]
        if opening.future.exception() is not None:
            return
        trajectory = opening.future.result()
        opening.first = trajectory.next_number
        trajectory.next_number += opening.line
        self._at_hand[key] = self._last_opened[key] = trajectory
        if len(self._last_opened) > LAST_OPENED:
            self._last_opened.popitem(last=False)

    def _creating(self, key: Key) -> dict[str, Any]:
        """What a change has to know to create a trajectory, if it may."""
        return {
            "job_arn": key[0],
            "trajectory_id": key[1],
            "may_create": self._create_trajectories,
            "any_job": self._any_job,
            "now": now(),
        }

    async def _move(
        self, change: Callable[..., Status], *, job_arn: str, trajectory_id: str, **parameters: object
    ) -> None:
        """Run a change of a trajectory's status, and keep what is at hand of it true."""

        key = (job_arn, trajectory_id)

        def note(moved: asyncio.Future[Status]) -> None:
            if moved.exception() is not None:
                return
            if (trajectory := self._at_hand.get(key)) is not None:
                trajectory.status = moved.result()
            if is_settled(moved.result()):
                self._watches.settled(key)

        moved = self._writer.change(
            key,
            partial(
                change,
                job_arn=job_arn,
                trajectory_id=trajectory_id,
                any_job=self._any_job,
                now=now(),
                **parameters,
            ),
        )
        moved.add_done_callback(note)
        await asyncio.shield(moved)  # a client that goes away does not take the change back


def _passes(error: BaseException | None) -> bool:
    """Whether what SQLAlchemy says of a shared database goes away by itself."""
    if isinstance(error, SQLTimeoutError):  # all connections are waiting for it
        return True
    cause = getattr(error, "orig", None)
    return isinstance(cause, Exception) and passes(cause)
