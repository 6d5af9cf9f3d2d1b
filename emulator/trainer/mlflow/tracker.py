"""Jobs' runs in MLflow. Whatever becomes of MLflow, the job goes on, and its log says what is missing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from emulator.job import Category, Job
from emulator.job_config import JobConfig, MlflowConfig
from emulator.store import Store, StoreError
from emulator.trainer.jobs.services import Run, Say
from emulator.trainer.jobs.untracked import UntrackedRun
from emulator.trainer.mlflow.rest import MlflowRefused, Rest
from emulator.trainer.mlflow.server import MlflowAway, MlflowError, MlflowServer
from emulator.trainer.mlflow.spans import spans_of
from emulator.trainer.rollouts import RolloutResult

#: Rollouts of which one request tells.
BATCH = 16

#: Seconds after MLflow was found away in which it is not asked again.
PAUSE = 30.0


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
        make_run = partial(MlflowRun, self._rest, self._store, job.arn, say=say)
        if known := job.output.get("MlflowDetails"):
            run = make_run(known, is_new=False)
            await run.go_on()
            return run
        try:
            details, is_new = await self._run_of(job, config.mlflow)
            shown = {name: str(value) for name, value in parameters.items()}
            about = {"agent_arn": config.agent_arn, "base_model_arn": config.base_model_arn}
            await self._rest.log_parameters(details["RunId"], shown | about)
        except MlflowError as error:
            await say(f"MLflow does not hear of this job: {error}")
            return UntrackedRun()
        return make_run(details, is_new=is_new)

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
        info = found or await self._create(job, config, experiment_id, mark)
        return {
            "ExperimentName": experiment,
            "RunName": info.get("run_name", ""),
            "ExperimentId": experiment_id,
            "RunId": info["run_id"],
        }, found is None

    async def _create(
        self, job: Job, config: MlflowConfig, experiment_id: str, mark: Mapping[str, str]
    ) -> dict[str, Any]:
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
        self._waiting: deque[Callable[[], Awaitable[None]]] = deque()
        self._away_since: float | None = None

    async def go_on(self) -> None:
        """Say that it is under way again."""
        self._waiting.append(partial(self._rest.update_run, self.details["RunId"], "RUNNING"))
        await self._tell()

    async def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """As the protocol has it."""
        self._waiting.append(partial(self._tell_metrics, dict(metrics), step, int(time.time() * 1000)))
        await self._tell()

    async def log_rollouts(self, part: str, results: Sequence[RolloutResult]) -> None:
        """As the protocol has it."""
        for first in range(0, len(results), BATCH):
            self._waiting.append(partial(self._tell_rollouts, part, results[first : first + BATCH]))
        await self._tell()

    async def end(self, status: str) -> None:
        """As the protocol has it."""
        self._waiting.append(partial(self._rest.update_run, self.details["RunId"], status, int(time.time() * 1000)))
        await self._tell(at_once=True)
        if self._waiting:
            await self._say(f"MLflow is still away: {len(self._waiting)} things about this job are not told to it")

    async def _tell(self, *, at_once: bool = False) -> None:
        """Tell what waits, as far as MLflow listens."""
        if self._away_since is not None and time.monotonic() < self._away_since + PAUSE and not at_once:
            return
        while self._waiting:
            try:
                await self._waiting[0]()
            except MlflowAway as error:
                if self._away_since is None:
                    await self._say(f"MLflow is away; what it should hear waits: {error}")
                self._away_since = time.monotonic()
                return
            except (MlflowRefused, StoreError) as error:
                await self._say(f"MLflow does not hear everything about this job: {error}")
            self._waiting.popleft()
            if self._away_since is not None:
                self._away_since = None
                await self._say("MLflow is back")

    async def _tell_metrics(self, metrics: Mapping[str, float], step: int, at: int) -> None:
        run_id = self.details["RunId"]
        if self._may_be_told:
            is_told = await self._rest.has_metric(run_id, next(iter(metrics)), step)
            self._may_be_told = False
            if is_told:
                return
        await self._rest.log_metrics(run_id, metrics, step, at)

    async def _tell_rollouts(self, part: str, results: Sequence[RolloutResult]) -> None:
        spans = await self._store.read_patiently(spans_of, self._job_arn, part, results)
        await self._rest.log_spans(self.details["ExperimentId"], self.details["RunId"], spans)
