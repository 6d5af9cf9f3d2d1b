"""The one writer: a thread that owns the write connection and commits all that is waiting as one transaction.

Group commit: while one transaction is on its way to the disk, others queue up, and the next one takes them all. An
acknowledgement is given only after the commit, so what was acknowledged is on disk.

The writes wait at the event loop, and the thread is handed a batch at a time: to wake it for each write would make
small batches, and to change threads costs as much as to append a turn.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from emulator.metrics import WriterMetrics
from emulator.refusal import Refusal
from emulator.store.changes import Key
from emulator.store.database import Database, DatabaseUnavailable, OutcomeUnknown
from emulator.store.prefixes import LastRequests
from emulator.store.statements import Transaction
from emulator.store.turns import TrajectoryGone, Turn, append_turns

T = TypeVar("T")

log = logging.getLogger(__name__)

#: The most that one transaction takes: bounds how long the first in it waits for the last.
MAX_BATCH = 512

#: Seconds without work after which the write-ahead log is moved into the database.
IDLE = 0.1

#: Bytes appended after which the log is moved at last: at 4,400 samples a second the slowest hundredth took 24 ms so,
#: and 132 ms with steps of 64 MiB.
CHECKPOINT_BYTES = 4 * 1024 * 1024

#: Bytes after which it is moved if moving it has not taken more than this share of the time lately. Who comes meanwhile
#: waits: 3 ms for such a step, 23 ms for one of 4 MiB. Where the disk is slow, steps are larger and fewer.
SMALL_STEP = 256 * 1024
CHECKPOINT_SHARE = 1 / 30


class StoreError(Exception):
    """A write was refused (a full disk, a read-only file, a reset meanwhile); nothing of it was stored."""


@dataclass(slots=True)
class _Write:
    """Something to write, and who waits for it: a turn, or a change that needs to look first."""

    key: Key  #: the trajectory's; empty for what concerns none or all
    turn: Turn | None
    change: Callable[[Transaction], Any] | None
    future: asyncio.Future[Any]
    queued_at: float
    context: Context = field(default_factory=copy_context)  #: which request log lines are about


class Writer:
    """Runs writes, one batch after another, in a thread of its own."""

    def __init__(self, database: Database, *, patience: float = 30.0, metrics: WriterMetrics | None = None) -> None:
        """`database` is open. `patience`: seconds that a write waits for a database that cannot be reached."""
        self._database = database
        self._patience = patience
        self._metrics = metrics or WriterMetrics()
        self._waiting: list[_Write] = []
        self._is_busy = False  # a batch is with the thread, or about to be handed over
        self._batches: queue.SimpleQueue[list[_Write] | None] = queue.SimpleQueue()
        self._last_requests = LastRequests()
        self._is_settled = True  # whether what `_last_requests` holds is in the database
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._unmoved_bytes = 0
        self._next_checkpoint = 0.0
        self._closed = False
        self._thread.start()

    def append(self, key: Key, turn: Turn) -> asyncio.Future[None]:
        """Append a turn; the future is done when it is committed, and may raise StoreError."""
        return self._submit(key, turn, None)

    def change(self, key: Key, change: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Run a change; the future has its result once it is committed, or raises its error, or StoreError."""
        return self._submit(key, None, change)

    async def aclose(self) -> None:
        """Commit what is waiting, move the log into the database, and end the thread."""
        if not self._closed:
            self._closed = True
            self._batches.put(self._waiting)  # all of it, whatever its size
            self._waiting = []
            self._batches.put(None)
            await asyncio.to_thread(self._thread.join)

    def _submit(self, key: Key, turn: Turn | None, change: Callable[[Transaction], Any] | None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreError("the server is stopping"))
            return future
        self._waiting.append(_Write(key, turn, change, future, time.monotonic()))
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._hand_over)  # with whatever else this turn of the event loop brings
        return future

    def _hand_over(self) -> None:
        """Give the thread what is waiting."""
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        self._is_busy = bool(batch)
        if batch:
            self._batches.put(batch)

    def _run(self) -> None:
        while True:
            try:
                batch = self._batches.get(timeout=IDLE if self._unmoved_bytes else None)
            except queue.Empty:
                self._checkpoint()
                continue
            if batch is None:
                break
            if batch:
                self._acknowledge(self._commit(batch))
                self._measure(batch)
            if self._is_due() and self._database.can_checkpoint():
                self._checkpoint()
        self._checkpoint()

    def _is_due(self) -> bool:
        """Whether so much stands in the log that some of it should be moved."""
        return self._unmoved_bytes > SMALL_STEP and (
            self._unmoved_bytes > CHECKPOINT_BYTES or time.monotonic() >= self._next_checkpoint
        )

    def _commit(self, batch: list[_Write]) -> list[tuple[_Write, Any]]:
        """Commit a batch; each write with its result or its error, but for those that were told before the others."""
        if self._database.is_shared:
            # Whoever locks trajectories in one order cannot wait in a circle. Of each, the writes stay in theirs.
            batch.sort(key=lambda write: write.key)
        while True:
            deadline = min(write.queued_at for write in batch) + self._patience
            try:
                outcomes = self._database.run(partial(self._execute, batch), deadline)
            except DatabaseUnavailable as error:
                refused, batch = self._out_of_patience(batch, error)
                outcomes = [(write, StoreError(str(error))) for write in refused]
                if not batch:
                    return outcomes
                self._acknowledge(outcomes, is_all=False)
            except Exception as error:
                if len(batch) == 1:
                    return [(batch[0], self._refusal(batch[0], error))]
                # Whatever one of them did must not take the others with it.
                for write in batch[:-1]:
                    self._acknowledge(self._commit([write]), is_all=False)
                return self._commit(batch[-1:])
            else:
                self._is_settled = True
                return outcomes

    def _out_of_patience(self, batch: list[_Write], error: DatabaseUnavailable) -> tuple[list[_Write], list[_Write]]:
        """Whose writes have waited long enough, and the others, which are tried again; none that may be written."""
        now = time.monotonic()
        late = [write for write in batch if write.queued_at + self._patience <= now]
        if isinstance(error, OutcomeUnknown) or not late:
            return batch, []
        return late, [write for write in batch if write.queued_at + self._patience > now]

    def _refusal(self, write: _Write, error: Exception) -> StoreError:
        if isinstance(error, TrajectoryGone):
            return StoreError(str(error))
        if not isinstance(error, self._database.Error):
            write.context.run(log.exception, "a write failed")
        return StoreError(f"The database could not be written: {error}")

    def _execute(self, batch: list[_Write], transaction: Transaction) -> list[tuple[_Write, Any]]:
        if not self._is_settled:
            self._last_requests.clear()  # an attempt before this one came to nothing, maybe at its commit
        self._is_settled = False
        outcomes: list[tuple[_Write, Any]] = []
        turns: list[Turn] = []
        for write in batch:
            if write.turn is not None:
                turns.append(write.turn)
                outcomes.append((write, None))
                continue
            self._append(transaction, turns)  # order matters: what came before a seal counts
            assert write.change is not None
            try:
                outcomes.append((write, write.change(transaction)))
            except Refusal as error:
                outcomes.append((write, error))
        self._append(transaction, turns)
        return outcomes

    def _append(self, transaction: Transaction, turns: list[Turn]) -> None:
        if turns:
            self._unmoved_bytes += append_turns(transaction, self._last_requests, turns)
            turns.clear()

    def _acknowledge(self, outcomes: list[tuple[_Write, Any]], *, is_all: bool = True) -> None:
        """Tell those who wait. `is_all`: the thread is done with the batch."""
        self._unmoved_bytes += 1  # a seal or a reward moves too, however small
        try:
            self._loop.call_soon_threadsafe(self._resolve, outcomes, is_all)
        except RuntimeError:  # the event loop is gone, and whoever waited with it
            log.debug("the event loop ended before %d writes were acknowledged", len(outcomes))

    def _measure(self, batch: list[_Write]) -> None:
        now = time.monotonic()
        for write in batch:
            self._metrics.wait.observe(now - write.queued_at)
        self._metrics.batch_turns.observe(sum(write.turn is not None for write in batch))

    def _checkpoint(self) -> None:
        self._unmoved_bytes = 0
        began_at = time.monotonic()
        try:
            self._database.checkpoint()
        except self._database.Error as error:  # a full disk, say: the log keeps what it holds
            log.warning("the write-ahead log could not be moved into the database: %s", error)
        ended_at = time.monotonic()
        self._next_checkpoint = ended_at + (ended_at - began_at) / CHECKPOINT_SHARE

    def _resolve(self, outcomes: list[tuple[_Write, Any]], is_all: bool) -> None:
        """Tell those who wait, and hand over what has come meanwhile."""
        for write, result in outcomes:
            if write.future.done():  # cancelled: its client went away
                continue
            if isinstance(result, Exception):
                write.future.set_exception(result)
            else:
                write.future.set_result(result)
        if is_all:
            self._hand_over()
