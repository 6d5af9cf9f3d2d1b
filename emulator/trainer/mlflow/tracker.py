"""Jobs' runs in MLflow. Whatever becomes of MLflow, the job goes on, and its log says what is missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from emulator.job import Category, Job
from emulator.job_config import JobConfig, MlflowConfig
from emulator.store import Store, StoreError
from emulator.trainer.jobs.services import Run, Say
from emulator.trainer.jobs.untracked import UntrackedRun
from emulator.trainer.mlflow.rest import MlflowRefused, Rest
from emulator.trainer.mlflow.server import MlflowAway, MlflowBusy, MlflowError, MlflowServer
from emulator.trainer.mlflow.spans import spans_of
from emulator.trainer.rollouts import RolloutResult

Tell = Callable[[], Awaitable[None]]

#: Rollouts that are read at once.
BATCH = 16

#: Seconds after MLflow was found away in which it is not asked again.
PAUSE = 30.0

#: Seconds that a job spends on telling what a step has brought; what is left waits.
PATIENCE = 20.0

#: The same at its end, where MLflow answers or starts; and seconds in which one that is not there is asked again, as a
#: child that was killed is until it is seen to be gone.
PATIENCE_AT_END = 60.0
AGAIN_AT_END = 10.0
AGAIN_EVERY = 0.5


class MlflowTracker:
    """The `Tracker` that tells an MLflow."""

    def __init__(self, server: MlflowServer, store: Store, note: str) -> None:
        """`note`: what every training run says of itself."""
        self._rest = Rest(server)
        self._store = store
        self._note = note

    async def begin(self, job: Job, config: JobConfig, parameters: Mapping[str, Any], say: Say) -> Run:
        """As the protocol has it."""
        if config.mlflow is None:
            return UntrackedRun()
        if known := self.known(job, say):
            await known.go_on()
            return known
        try:
            details, is_new = await self._run_of(job, config.mlflow)
        except MlflowError as error:
            await say(f"MLflow does not hear of this job: {error}")
            return UntrackedRun()
        run = MlflowRun(self._rest, self._store, job.arn, details, say=say, is_new=is_new)
        shown = {name: str(value) for name, value in parameters.items()}
        await run.log_parameters(shown | {"agent_arn": config.agent_arn, "base_model_arn": config.base_model_arn})
        return run

    def known(self, job: Job, say: Say) -> MlflowRun | None:
        """As the protocol has it."""
        details = job.output.get("MlflowDetails")
        return MlflowRun(self._rest, self._store, job.arn, details, say=say, is_new=False) if details else None

    async def aclose(self) -> None:
        """End the connections."""
        await self._rest.aclose()

    async def _run_of(self, job: Job, config: MlflowConfig) -> tuple[dict[str, str], bool]:
        """MlflowDetails of the job's run, and whether it is new. Raises MlflowError."""
        # ASSUMED: the names of an experiment and a run that the job does not name.
        experiment = config.experiment_name or f"job-runtime-{job.category}"
        experiment_id = await self._rest.experiment_id(experiment)
        # A name may be given again when its job was deleted; the time makes it this job.
        mark = {"sagemaker.job_arn": job.arn, "sagemaker.job_created_at": str(job.created_at)}
        found = await self._rest.find_run(experiment_id, mark)  # of a server that died before it noted the details
        run_id, name = found or await self._create(job, config, experiment_id, mark)
        return {
            "ExperimentName": experiment,
            "RunName": name,
            "ExperimentId": experiment_id,
            "RunId": run_id,
        }, found is None

    async def _create(
        self, job: Job, config: MlflowConfig, experiment_id: str, mark: Mapping[str, str]
    ) -> tuple[str, str]:
        tags = {**mark, "mlflow.source.name": job.arn, "mlflow.source.type": "JOB"}
        if job.category is Category.TRAINING:
            tags["mlflow.note.content"] = self._note
        return await self._rest.create_run(experiment_id, config.run_name or job.name, job.created_at // 1000, tags)


class MlflowRun:
    """A `Run` of an MLflow. What cannot be told now waits for the next thing to tell, and for the end."""

    def __init__(
        self,
        rest: Rest,
        store: Store,
        job_arn: str,
        details: Mapping[str, str],
        *,
        say: Say,
        is_new: bool,
    ) -> None:
        self.details = details
        self._rest = rest
        self._store = store
        self._job_arn = job_arn
        self._say = say
        self._may_be_told = not is_new  # the first step may be one that another server has told of already
        self._waiting: list[Tell] = []
        self._status: Tell | None = None  # the last one counts, and is told after all else
        self._away_since: float | None = None

    async def go_on(self) -> None:
        """Say that it is under way again."""
        self._status = partial(self._rest.update_run, self.details["RunId"], "RUNNING")
        await self._tell(PATIENCE)

    async def log_parameters(self, parameters: Mapping[str, str]) -> None:
        """Parameters of the job."""
        await self._log(partial(self._rest.log_parameters, self.details["RunId"], parameters))

    async def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """As the protocol has it."""
        at, may_be_told, self._may_be_told = int(time.time() * 1000), self._may_be_told, False
        await self._log(partial(self._tell_metrics, dict(metrics), step, at, may_be_told=may_be_told))

    async def log_rollouts(self, part: str, results: Sequence[RolloutResult]) -> None:
        """As the protocol has it."""
        batches = [results[first : first + BATCH] for first in range(0, len(results), BATCH)]
        await self._log(*(partial(self._tell_rollouts, part, batch) for batch in batches))

    async def end(self, status: str) -> None:
        """As the protocol has it."""
        self._status = partial(self._rest.update_run, self.details["RunId"], status, int(time.time() * 1000))
        until = time.monotonic() + AGAIN_AT_END
        while True:
            is_nobody_there = await self._tell(PATIENCE_AT_END, all_of_it=True)
            if not is_nobody_there or time.monotonic() > until:
                break
            await asyncio.sleep(AGAIN_EVERY)
        if left := self._left():
            await self._say(f"MLflow is still away: {len(left)} things about this job are not told to it")

    async def _log(self, *things: Tell) -> None:
        self._waiting.extend(things)
        if self._away_since is None or time.monotonic() >= self._away_since + PAUSE:
            await self._tell(PATIENCE)

    def _left(self) -> list[Tell]:
        return [*self._waiting, *([] if self._status is None else [self._status])]

    async def _tell(self, patience: float, *, all_of_it: bool = False) -> bool:
        """Tell what waits, for so many seconds and up to the first thing that is not heard; whether nobody was there.

        `all_of_it`: also what is behind that, if somebody is there.
        """
        tell: Tell | None = None
        try:
            async with asyncio.timeout(patience) as limit:
                for tell in self._left():
                    try:
                        await self._tell_one(tell)
                    except MlflowAway as error:
                        await self._note_away(tell, str(error))
                        if not isinstance(error, MlflowBusy):
                            return True
                        if not all_of_it:
                            break
        except TimeoutError:
            if not limit.expired() or tell is None:
                raise
            await self._note_away(tell, f"to tell it takes more than {patience:g} s")
        return False

    async def _tell_one(self, tell: Tell) -> None:
        """Raises MlflowAway."""
        try:
            await tell()
        except (MlflowRefused, StoreError) as error:
            await self._say(f"MLflow does not hear everything about this job: {error}")
        if tell is self._status:
            self._status = None
        else:
            self._waiting.remove(tell)
        if self._away_since is not None:
            self._away_since = None
            await self._say("MLflow is back")

    async def _note_away(self, tell: Tell, why: str) -> None:
        if tell in self._waiting:  # behind the others: one that MLflow cannot swallow stands in nobody's way
            self._waiting.remove(tell)
            self._waiting.append(tell)
        if self._away_since is None:
            await self._say(f"MLflow is away; what it should hear waits: {why}")
        self._away_since = time.monotonic()

    async def _tell_metrics(self, metrics: Mapping[str, float], step: int, at: int, *, may_be_told: bool) -> None:
        run_id = self.details["RunId"]
        if may_be_told and await self._rest.has_metric(run_id, next(iter(metrics)), step):
            return
        await self._rest.log_metrics(run_id, metrics, step, at)

    async def _tell_rollouts(self, part: str, results: Sequence[RolloutResult]) -> None:
        for body in await self._store.read_patiently(spans_of, self._job_arn, part, results):
            await self._rest.log_spans(self.details["ExperimentId"], self.details["RunId"], body)
