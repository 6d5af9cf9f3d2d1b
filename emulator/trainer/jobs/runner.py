"""Runs the jobs that there are, each in a task of its own, also those that another server has left."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from emulator.job import ACTIVE, Category, Job, JobError, JobStatus, SecondaryStatus
from emulator.job_config import JobConfig, read_config
from emulator.store import StoreError
from emulator.store.jobs import JobTaken
from emulator.trainer.jobs.evaluation import evaluate
from emulator.trainer.jobs.run import STOPPED, JobRun, Stopped
from emulator.trainer.jobs.services import JobFailed, Services
from emulator.trainer.jobs.training import promote, train
from emulator.trainer.runtime import RuntimeGone

log = logging.getLogger(__name__)

RESTARTING = "Restarting job due to retriable internal error"  # OBSERVED: the text


class Jobs:
    """Who runs jobs. Belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._runs: dict[str, JobRun] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def resume(self, job: Job) -> None:
        """Go on with a job that was under way when another server ended."""
        self._begin(job, resumed=True)

    def begin(self, job: Job) -> None:
        """Start on a job that was just stored."""
        self._begin(job, resumed=False)

    @property
    def under_way(self) -> frozenset[str]:
        """The ARNs of what is being done, or is being left off."""
        return frozenset(self._tasks)

    def stop(self, arn: str) -> None:
        """Have a job under way end soon; its status says Stopping already."""
        if (run := self._runs.get(arn)) is not None:
            run.stop()

    def let_go(self, arn: str) -> None:
        """Begin to leave off where a job is: it may be another server's."""
        if (task := self._tasks.get(arn)) is not None:
            task.cancel()

    def leave_off(self) -> None:
        """Begin to leave off where the jobs are; the next server goes on with them."""
        for task in self._tasks.values():
            task.cancel()

    async def break_off(self) -> None:
        """Leave off where they are; returns when all have been."""
        self.leave_off()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def aclose(self) -> None:
        """Returns when all have been left off."""
        await self.break_off()
        await self._services.tracker.aclose()

    def _begin(self, job: Job, *, resumed: bool) -> None:
        run = self._runs[job.arn] = JobRun(job, self._services)  # at once: it may be told to stop before it has begun
        task = asyncio.create_task(self._run(run, resumed=resumed), name=job.arn)
        self._tasks[job.arn] = task
        task.add_done_callback(partial(self._forget, job.arn))

    def _forget(self, arn: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(arn) is task:
            del self._tasks[arn], self._runs[arn]

    async def _run(self, run: JobRun, *, resumed: bool) -> None:
        try:
            if resumed and (await run.look()).status not in ACTIVE:  # it ended while it was looked up
                return
            await self._do(run, resumed=resumed)
        except JobTaken as error:
            log.warning("job %s is left off: %s", run.job.arn, error)
        except JobError:  # deleted or moved on meanwhile
            log.debug("job %s went another way", run.job.arn, exc_info=True)

    async def _do(self, run: JobRun, *, resumed: bool) -> None:
        """Do a job to its end, whatever that is. Raises JobError."""
        job = run.job
        work = {Category.TRAINING: train, Category.EVALUATION: evaluate}[job.category]
        try:
            config = read_config(job.category, job.schema_version, job.document, strict=False)
            try:
                if job.status is JobStatus.STOPPING:
                    run.stop()
                elif resumed:
                    await run.move(SecondaryStatus.RESTARTING, RESTARTING)
                async with asyncio.timeout(config.max_runtime) as deadline:
                    await work(run, config)
            except Stopped:
                await self._break_off(run, config, SecondaryStatus.STOPPED, STOPPED)
            except TimeoutError:
                if not deadline.expired():
                    raise
                why = f"Job exceeded its maximum runtime of {config.max_runtime} seconds"
                await self._break_off(run, config, SecondaryStatus.MAX_RUNTIME_EXCEEDED, why)
        except (JobFailed, RuntimeGone) as error:
            await run.fail(str(error))
        except StoreError as error:
            await run.fail(f"InternalServerError: {error}")
        except JobError:
            raise
        except Exception as error:
            log.exception("job %s failed", job.arn)
            await run.fail(f"InternalServerError: {type(error).__name__}: {error}")

    async def _break_off(self, run: JobRun, config: JobConfig, to: SecondaryStatus, message: str) -> None:
        """End a job early; what it has come to is kept."""
        if run.job.category is Category.TRAINING:
            await promote(run, config)
        await run.end(to, message)
