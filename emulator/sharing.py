"""Looks which jobs and pipeline executions of a shared database this server has to do: `emulator.store.runners`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from emulator.job import Job, JobStatus
from emulator.pipeline import Execution, ExecutionStatus
from emulator.store import Store, StoreError
from emulator.store.runners import LEASE, hold, leave

log = logging.getLogger(__name__)

#: Seconds between two looks: what is stopped at another server, or was another's, waits so long at most.
PAUSE = 2.0

#: Seconds after the last look that succeeded in which what is under way here is surely nobody else's.
SURELY = LEASE - 2 * PAUSE

T = TypeVar("T", Job, Execution)
T_contra = TypeVar("T_contra", contravariant=True)


class Runs(Protocol[T_contra]):
    """Whoever does jobs, or executions."""

    @property
    def under_way(self) -> frozenset[str]:
        """The ARNs of what is being done, or is being left off."""

    def resume(self, work: T_contra, /) -> None:
        """Go on with what another server has left."""

    def stop(self, arn: str) -> None:
        """Have it end soon."""

    def let_go(self, arn: str) -> None:
        """Begin to leave off where it is."""


class Sharing:
    """Says every few seconds that this server is there, and has what belongs to it done, and nothing else."""

    def __init__(
        self, store: Store, runner: str, jobs: Callable[[], Runs[Job]], executions: Callable[[], Runs[Execution]]
    ) -> None:
        """`runner`: as whom. `jobs`, `executions`: make those who do them, when there is something to do."""
        self._store = store
        self._runner = runner
        self._make_jobs = jobs
        self._make_executions = executions
        self.jobs: Runs[Job] | None = None  #: who does jobs, once there is somebody
        self.executions: Runs[Execution] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._sure_until = 0.0

    async def start(self) -> None:
        """Look for the first time, and from now on. Raises StoreError."""
        await self._look()
        self._looking = asyncio.create_task(self._keep_looking(), name="sharing")

    def end(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def leave(self) -> None:
        """Let other servers have at once what was left off here."""
        self.end()
        with suppress(StoreError):
            await self._store.write(("", ""), leave, self._runner)

    async def _keep_looking(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(PAUSE)
            look = asyncio.create_task(self._look())
            try:
                await asyncio.wait((look,), timeout=max(0.0, self._sure_until - time()))
                if not look.done():
                    self._let_everything_go()
                await look
            except StoreError as error:
                log.warning("which jobs are this server's cannot be looked up: %s", error)
            except Exception:
                log.exception("which jobs are this server's cannot be looked up")
            finally:
                look.cancel()

    async def _look(self) -> None:
        """Raises StoreError."""
        began_at = asyncio.get_running_loop().time()
        # As it is now: what begins while the database is asked is missing in its answer.
        jobs, executions = _under_way(self.jobs), _under_way(self.executions)
        held = await self._store.write(("", ""), hold, self._runner)
        self._sure_until = began_at + SURELY
        if held.taken:
            log.warning("%d jobs or pipeline executions that no server does are gone on with here", held.taken)
        if held.jobs or jobs:
            stopping = {job.arn for job in held.jobs if job.status is JobStatus.STOPPING}
            _agree(self.jobs or self._make_jobs(), jobs, held.jobs, stopping)
        if held.executions or executions:
            stopping = {each.arn for each in held.executions if each.status is ExecutionStatus.STOPPING}
            _agree(self.executions or self._make_executions(), executions, held.executions, stopping)

    def _let_everything_go(self) -> None:
        """What was not looked for in time may be another server's by now."""
        there: list[Runs[Any]] = [runs for runs in (self.jobs, self.executions) if runs is not None]
        for runs in there:
            for arn in runs.under_way:
                log.warning("%s is left off: the database does not answer", arn)
                runs.let_go(arn)


def _under_way(runs: Runs[Any] | None) -> frozenset[str]:
    return frozenset() if runs is None else runs.under_way


def _agree(runs: Runs[T], before: Iterable[str], held: Iterable[T], stopping: Iterable[str]) -> None:
    """Do what is held, and nothing that was under way before and is not."""
    mine = {each.arn: each for each in held}
    for arn in before:
        # Another's, or gone; or it has ended, and so has whoever did it, nearly.
        if arn not in mine and arn in runs.under_way:
            log.warning("%s is left off: it is another server's by now, or gone", arn)
            runs.let_go(arn)
    for arn in stopping:
        runs.stop(arn)
    for arn, work in mine.items():
        if arn not in runs.under_way:
            runs.resume(work)
