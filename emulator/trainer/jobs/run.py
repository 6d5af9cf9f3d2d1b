"""One job under way: its state, its log, and the steps of rollouts that training and evaluation are made of."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from emulator.job import InvalidMove, Job, JobStatus, SecondaryStatus, move
from emulator.job_config import JobConfig
from emulator.store import StoreError, now
from emulator.store.jobs import change_job, note_attempt, note_result, rollouts_of_part
from emulator.trainer.agents import Agent, AgentFailed
from emulator.trainer.dispatch import Dispatcher, Limits, roll_out_all
from emulator.trainer.jobs.services import JobFailed, Run, Services
from emulator.trainer.journal import result_document, result_from
from emulator.trainer.payloads import InferenceParameters
from emulator.trainer.report import count_failures
from emulator.trainer.rollouts import Rollout, RolloutResult, Row

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that an agent gets until it can be asked.
AGENT_PATIENCE = 60.0

#: Seconds until the end of a job, or a step of a pipeline, is stored again, where the database did not take it.
TRY_AGAIN = 1.0

#: The message of a job that was stopped.
STOPPED = "Job stopped"

#: Longest FailureReason of the service model.
MAX_REASON = 1024


class Stopped(Exception):
    """The job was told to stop."""


class JobRun:
    """A job under way. `job` is what the store holds."""

    def __init__(self, job: Job, services: Services) -> None:
        self.job = job
        self.services = services
        self.mlflow: Run | None = None
        self._stopping = asyncio.Event()
        self._dispatcher: Dispatcher | None = None
        self._stream = f"{job.name}/algo-1-{job.created_at // 1_000_000}"

    # Its state

    async def move(self, to: SecondaryStatus, message: str | None = None) -> None:
        """Another secondary status, or the same with another message. Raises Stopped, InvalidMove, StoreError."""
        self._check_stop()
        try:
            await self._change(partial(move, to=to, now=now(), message=message))
        except InvalidMove as error:
            if error.status is not JobStatus.STOPPING:
                raise
            self.stop()  # told so by way of the database, or this moment
            raise Stopped from None
        if message is not None:
            await self.say(message)

    async def end(self, to: SecondaryStatus, message: str) -> None:
        """The job is over. Raises JobError."""
        await self._require_runner()
        await self.say(message)
        await self._end_mlflow("FINISHED" if to is SecondaryStatus.COMPLETED else "KILLED")
        await self._change_at_last(partial(_ended, to=to, message=message))

    async def fail(self, reason: str) -> None:
        """The job is over, and why. Raises JobError."""
        await self._require_runner()
        reason = _storable(reason)
        reason = reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"
        await self.say(reason)
        await self._end_mlflow("FAILED")
        await self._change_at_last(partial(_ended, to=SecondaryStatus.FAILED, message=reason, reason=reason))

    async def update(self, **output: Any) -> None:
        """Change members of ServiceOutput."""
        await self._change(lambda job: replace(job, output={**job.output, **output}, modified_at=now()))

    async def say(self, line: str) -> None:
        """A line of its log."""
        line = _storable(line)
        log.info("job %s: %s", self.job.name, line)
        try:
            await self.services.cloud.log(f"/aws/sagemaker/Job/{self.job.category}", self._stream, [(now(), line)])
        except JobFailed as error:
            log.warning("job %s: its log cannot be written: %s", self.job.name, error)

    async def track(self, config: JobConfig) -> Run:
        """Begin with its run in MLflow, or go on with it. Raises Stopped."""
        begin = self.services.tracker.begin(self.job, config, config.hyperparameters, self.say)
        self.mlflow = run = await self._until_stopped(begin)
        if run.details:
            await self.update(MlflowDetails=dict(run.details))
        return run

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()
        if self._dispatcher is not None:
            self._dispatcher.end()

    def _check_stop(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    async def _change(self, change: Any) -> None:
        self.job = await self._write(change_job, change)

    async def look(self) -> Job:
        """The job as it is stored now. Raises JobNotFound, JobTaken."""
        await self._change_at_last(lambda job: job)
        return self.job

    async def _require_runner(self) -> None:
        """Before others are told how it ended. Raises JobTaken."""
        if self.services.store.runner is not None:
            await self.look()

    async def _write(self, change: Callable[..., T], *arguments: object) -> T:
        """Run a change of this job's, as its runner. Raises JobTaken, StoreError."""
        store, arn = self.services.store, self.job.arn
        return await store.write((arn, ""), partial(change, runner=store.runner), arn, *arguments)

    async def _change_at_last(self, change: Any) -> None:
        """A change that is tried until the database takes it, else the job would be under way for ever."""
        while True:
            try:
                return await self._change(change)
            except StoreError as error:
                log.warning("job %s: its end cannot be stored yet: %s", self.job.arn, error)
                await asyncio.sleep(TRY_AGAIN)

    async def _end_mlflow(self, status: str) -> None:
        run = self.mlflow or self.services.tracker.known(self.job, self.say)  # which another server has begun
        if run is not None:
            await run.end(status)

    # Its rollouts

    async def check_outputs(self, config: JobConfig) -> None:
        """Is there where its results go? Raises Stopped, JobFailed."""
        await self._until_stopped(self.services.cloud.check_outputs(config))

    async def read_dataset(self, uri: str) -> list[Row]:
        """The rows of a channel. Raises Stopped, JobFailed."""
        return await self._until_stopped(self.services.cloud.read_dataset(uri))

    @asynccontextmanager
    async def agent(self, config: JobConfig) -> AsyncIterator[Agent]:
        """The job's agent, ready to be asked. Raises Stopped, JobFailed."""
        timeout = config.hyperparameters["rollout_timeout"]
        agent = await self.services.find_agent(config.agent_arn, config.agent_qualifier, timeout)
        try:
            try:
                await self._until_stopped(agent.start(AGENT_PATIENCE))
            except AgentFailed as error:
                raise JobFailed(f"ClientError: the agent cannot be reached: {error}") from error
            yield agent
        finally:
            await agent.aclose()

    async def roll_out(
        self,
        part: str,
        rows: Sequence[Row],
        group_size: int,
        agent: Agent,
        config: JobConfig,
    ) -> list[RolloutResult]:
        """The rollouts of one step, those that are over already taken from the store.

        `part` names the step within the job. Raises Stopped, JobFailed where none of them got a reward, RuntimeGone.
        """
        arn, parameters = self.job.arn, config.hyperparameters
        begun = await self.services.store.read_patiently(rollouts_of_part, arn, part)
        results = [result_from(json.loads(result)) for _, result in begun.values() if result is not None]
        done = {(result.row, result.member) for result in results}
        every = (Rollout(row, member) for row in rows for member in range(group_size))
        left = (rollout for rollout in every if rollout.key not in done)
        total = len(rows) * group_size

        async def announce(rollout: Rollout, trajectory_id: str) -> None:
            await self._write(note_attempt, part, *rollout.key, trajectory_id)

        async def finished(result: RolloutResult) -> None:
            document = json.dumps(result_document(result), separators=(",", ":"))
            await self._write(note_result, part, result.row, result.member, document)
            results.append(result)
            if result.failure is not None:
                await self.say(f"Rollout {result.trajectory_id}: {result.failure.text}: {result.failure.reason}")
            await self.update(RolloutInfo={"Total": total, "Completed": len(results)})

        self._dispatcher = Dispatcher(
            agent=agent,
            runtime=self.services.runtime,
            job_arn=arn,
            limits=Limits(
                concurrency=parameters["rollout_max_concurrency"],
                rate=self.services.rate,
                timeout=parameters["rollout_timeout"],
                retries=parameters["rollout_max_retries"],
            ),
            inference=InferenceParameters(
                parameters["temperature"], parameters["sampling_top_p"], parameters["sampling_max_tokens"]
            ),
            group_prefix=f"{part}-",
            announce=announce,
        )
        await self.update(RolloutInfo={"Total": total, "Completed": len(results)})
        try:
            await self._until_stopped(
                roll_out_all(
                    self._dispatcher, left, finished, {key: id_ for key, (id_, result) in begun.items() if not result}
                )
            )
        finally:
            self._dispatcher = None
        if all(result.failure is not None for result in results):
            raise JobFailed(_none_succeeded(results))
        return sorted(results, key=lambda result: (result.row, result.member))

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it, or break it off when the job is told to stop. Raises Stopped."""
        working, stopping = asyncio.ensure_future(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            self._check_stop()
            return await working
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)


def _ended(job: Job, to: SecondaryStatus, message: str, reason: str | None = None) -> Job:
    """Where somebody has told it to stop meanwhile, a job that is done has stopped."""
    if job.secondary_status is SecondaryStatus.STOPPING and to is SecondaryStatus.COMPLETED:
        to, message = SecondaryStatus.STOPPED, STOPPED
    return move(job, to, now(), message, reason=reason)


def _storable(text: str) -> str:
    """A text that came from elsewhere, without what no database or log takes: halves of pairs, and U+0000."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _none_succeeded(results: Sequence[RolloutResult]) -> str:
    # ASSUMED: a job of which no rollout of a step gets a reward fails; with which words.
    failures = "; ".join(
        f"{each['text']} ({each['count']}: {each['reasons'][0]['reason']})" for each in count_failures(results)
    )
    return f"ClientError: none of {len(results)} rollouts got a reward: {failures}"
