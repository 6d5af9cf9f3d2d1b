"""Runs pipeline executions, each in a task of its own, also those that another server has left."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from emulator.job import JobStatus
from emulator.operations.control import Control
from emulator.operations.create_job import create_job
from emulator.operations.describe_job import describe_job
from emulator.operations.stop_job import stop_job
from emulator.pipeline import (
    UNDER_WAY,
    Execution,
    ExecutionStatus,
    InvalidDefinition,
    InvalidReference,
    PipelineError,
    Step,
    StepDefinition,
    StepStatus,
    follow,
    read_definition,
    resolve,
)
from emulator.protocol import aws_json
from emulator.protocol.errors import AWSError, ResourceInUse, ResourceNotFound, ValidationException
from emulator.protocol.shapes import encode_shape
from emulator.store import StoreError, now
from emulator.store.pipelines import ExecutionTaken, change_execution
from emulator.trainer.jobs.run import TRY_AGAIN
from emulator.trainer.jobs.services import JobFailed

log = logging.getLogger(__name__)

#: Seconds between two looks at a job.
LOOK = 0.2

#: Longest FailureReason of a step, by the service model.
MAX_REASON = 1024

STEPS_FAILED = "Step failure: One or multiple steps failed."  # OBSERVED: the text


class StepFailed(Exception):
    """A step cannot go on; the message is its FailureReason."""


class Lineage(Protocol):
    """Where it is kept what came of what. Its functions raise JobFailed."""

    async def create_lineage(self, kind: str, members: Mapping[str, Any]) -> str:
        """Create an Action, an Artifact or a Context by the members of its request; its ARN."""

    async def associate(self, source_arn: str, destination_arn: str, kind: str) -> None:
        """Say that something came of something else."""


class PipelineRuns:
    """Who runs pipeline executions. Belongs to one event loop."""

    def __init__(self, control: Control, lineage: Lineage) -> None:
        self._control = control
        self._lineage = lineage
        self._runs: dict[str, _Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, execution: Execution) -> None:
        """Start on an execution that was just stored."""
        self._begin(execution, resumed=False)

    def resume(self, execution: Execution) -> None:
        """Go on with an execution that was under way when another server ended."""
        self._begin(execution, resumed=True)

    @property
    def under_way(self) -> frozenset[str]:
        """The ARNs of what is being done, or is being left off."""
        return frozenset(self._tasks)

    def let_go(self, arn: str) -> None:
        """Begin to leave off where an execution is: it may be another server's."""
        if (task := self._tasks.get(arn)) is not None:
            task.cancel()

    def stop(self, arn: str) -> None:
        """Have an execution end soon; its status says Stopping already."""
        if (run := self._runs.get(arn)) is not None:
            run.stopping.set()

    def leave_off(self) -> None:
        """Begin to leave off where they are; the next server goes on with them."""
        for task in self._tasks.values():
            task.cancel()

    async def aclose(self) -> None:
        """Leave off where they are; returns when all have been."""
        self.leave_off()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, execution: Execution, *, resumed: bool) -> None:
        run = self._runs[execution.arn] = _Run(execution, self._control, self._lineage)
        task = asyncio.create_task(self._run(run, resumed=resumed), name=execution.arn)
        self._tasks[execution.arn] = task
        task.add_done_callback(partial(self._forget, execution.arn))

    def _forget(self, arn: str, _task: asyncio.Task[None]) -> None:
        del self._tasks[arn], self._runs[arn]

    async def _run(self, run: _Run, *, resumed: bool) -> None:
        try:
            if not resumed or await run.is_under_way():  # it may have ended while it was looked up
                await run.run()
        except ExecutionTaken as error:
            log.warning("pipeline execution %s is left off: %s", run.execution.arn, error)
        except PipelineError:
            log.exception("pipeline execution %s went another way", run.execution.arn)


class _Run:
    """One execution under way. `execution` is what the store holds."""

    def __init__(self, execution: Execution, control: Control, lineage: Lineage) -> None:
        self.execution = execution
        self.stopping = asyncio.Event()
        self._control = control
        self._lineage_store = lineage
        self._parameters: Mapping[str, Any] = {}

    async def is_under_way(self) -> bool:
        """Whether there is something to do for it, as it is stored now. Raises PipelineError."""
        await self._change(lambda execution: execution)
        if self.execution.status is ExecutionStatus.STOPPING:
            self.stopping.set()
        return self.execution.status in UNDER_WAY

    async def run(self) -> None:
        """To its end, whatever that is. Raises PipelineError."""
        try:
            steps, self._parameters = read_definition(self.execution.definition, self.execution.parameters)
        except InvalidDefinition as error:
            await self._change(partial(_ended, status=ExecutionStatus.FAILED, reason=str(error)))
            return
        running: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for step in steps:
                    if step.name not in running and self._may_run(step):
                        running[step.name] = asyncio.create_task(self._do(step))
                waiting = [task for task in running.values() if not task.done()]
                if not waiting:
                    break
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in running.values():
                    if task.done():
                        task.result()
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)
        statuses = {step.status for step in self.execution.steps}
        if self.stopping.is_set():
            await self._change(partial(_ended, status=ExecutionStatus.STOPPED))
        elif statuses - {StepStatus.SUCCEEDED}:
            await self._change(partial(_ended, status=ExecutionStatus.FAILED, reason=STEPS_FAILED))
        else:
            await self._change(partial(_ended, status=ExecutionStatus.SUCCEEDED))

    def _may_run(self, step: StepDefinition) -> bool:
        """Whether its turn has come: one that another server has begun goes on, whatever else is."""
        begun = self.execution.step(step.name)
        if begun is not None:
            return begun.status is StepStatus.EXECUTING
        if self.stopping.is_set() or any(each.status is StepStatus.FAILED for each in self.execution.steps):
            return False
        done = {each.name for each in self.execution.steps if each.status is StepStatus.SUCCEEDED}
        return step.needs <= done

    async def _do(self, step: StepDefinition) -> None:
        """Do a step to its end. Raises PipelineError."""
        state = self.execution.step(step.name) or Step(step.name, StepStatus.EXECUTING, now())
        await self._keep(state)
        try:
            if step.kind == "Lineage":
                state = replace(state, metadata={"lineage": await self._lineage(step)}, status=StepStatus.SUCCEEDED)
            elif step.kind == "Job":
                arn, state = await self._begin_job(step, state)
                state = replace(state, status=await self._job_ended(arn))
            else:
                raise StepFailed(f"ClientError: steps of type {step.kind} are not emulated; there are Job and Lineage")
        except (StepFailed, InvalidReference, AWSError) as error:
            reason = str(error)
            reason = reason if isinstance(error, StepFailed) else f"ClientError: {reason}"
            state = self.execution.step(step.name) or state
            state = replace(state, status=StepStatus.FAILED, failure_reason=reason[:MAX_REASON])
        except PipelineError:
            raise
        except Exception as error:
            log.exception("step %s of %s failed", step.name, self.execution.arn)
            reason = f"InternalServerError: {type(error).__name__}: {error}"
            state = replace(state, status=StepStatus.FAILED, failure_reason=reason[:MAX_REASON])
        await self._keep(replace(state, ended_at=now()))

    async def _begin_job(self, step: StepDefinition, state: Step) -> tuple[str, Step]:
        """Create the job of a step, unless it was created before. Raises AWSError, InvalidReference, StepFailed."""
        given = await self._arguments(step)
        if not isinstance(given, dict):
            raise StepFailed(f"ClientError: the arguments of step {step.name} are no object")
        if not isinstance(given.get("JobConfigDocument", ""), str):
            given["JobConfigDocument"] = json.dumps(given["JobConfigDocument"])
        # The same for each attempt, so that a step is begun once, whatever happens to the server.
        ending = hashlib.sha256(f"{self.execution.arn} {step.name}".encode()).hexdigest()[:10]
        readable = re.sub("[^A-Za-z0-9]+", "", step.name)[:26]
        name = f"pipelines-{self.execution.id}-{readable}-{ending}"
        members = aws_json.decode("CreateJob", {}, json.dumps({**given, "JobName": name}).encode())
        arn = self._control.arn(members["job_category"], name)
        # ASSUMED: what AWS says of a Job step is not known. The service model has Job; the SDK (1.27.0) reads the
        # ARN only from TrainingJob and others of the older kinds. Both are said, so that the SDK finds its job.
        state = replace(state, metadata={"job": {"arn": arn}, "training_job": {"arn": arn}})
        await self._keep(state)
        try:
            await create_job(self._control, **members)
        except ResourceInUse:
            log.info("step %s: %s is there already", step.name, arn)
        return arn, state

    async def _job_ended(self, arn: str) -> StepStatus:
        """Wait for a job. Raises StepFailed, ResourceNotFound."""
        told = False
        while True:
            job = await self._control.find_by_arn(arn)
            match job.status:
                case JobStatus.COMPLETED:
                    return StepStatus.SUCCEEDED
                case JobStatus.STOPPED if self.stopping.is_set():
                    return StepStatus.STOPPED
                case JobStatus.STOPPED:
                    raise StepFailed(f"ClientError: {arn} was stopped: {job.secondary_status}")
                case JobStatus.FAILED:
                    raise StepFailed(job.failure_reason or f"ClientError: {arn} failed")
            if self.stopping.is_set() and not told:
                told = True
                try:
                    await stop_job(self._control, job_name=job.name, job_category=job.category)
                except (ValidationException, ResourceNotFound):  # it has ended meanwhile
                    continue
            await asyncio.sleep(LOOK)

    async def _lineage(self, step: StepDefinition) -> dict[str, Any]:
        """Create what a Lineage step names, and associate it. Raises InvalidReference, StepFailed."""
        given = await self._arguments(step)
        arns: dict[str, dict[str, str]] = {"Action": {}, "Artifact": {}, "Context": {}}
        try:
            for kind, its_arns in arns.items():
                for each in given.get(f"{kind}s", []):
                    its_arns[each[f"{kind}Name"]] = await self._lineage_store.create_lineage(kind, each)
            associations = [
                (_end(each["Source"], arns), _end(each["Destination"], arns), each["AssociationType"])
                for each in given.get("Associations", [])
            ]
            for association in associations:
                await self._lineage_store.associate(*association)
        except (KeyError, TypeError, AttributeError) as error:
            message = f"ClientError: the arguments of step {step.name} are not valid: {type(error).__name__}: {error}"
            raise StepFailed(message) from None
        except JobFailed as error:
            raise StepFailed(str(error)) from None
        return {
            **{f"{kind.lower()}_arns": its_arns for kind, its_arns in arns.items()},
            "associations": [{"source_arn": source, "destination_arn": to} for source, to, _ in associations],
        }

    async def _arguments(self, step: StepDefinition) -> Any:
        """A step's arguments with what their references stand for. Raises InvalidReference, AWSError."""
        described = {each.name: await self._described(each) for each in self.execution.steps if each.name in step.needs}
        return resolve(step.arguments, lambda path: self._get(path, described))

    def _get(self, path: str, described: Mapping[str, Any]) -> Any:
        kind, _, rest = path.partition(".")
        execution = self.execution
        if kind == "Steps":
            name, _, rest = rest.partition(".")
            try:
                return follow(described.get(name), rest, path)
            except InvalidReference:
                if ".ServiceOutput.MlflowDetails." not in path:
                    raise
                # A job without MLflow has none, and need not fail for it; but a Source must have an address.
                return described[name].get("JobArn", "none")
        known = {
            "Execution": {
                "PipelineExecutionId": execution.id,
                "PipelineExecutionArn": execution.arn,
                "PipelineName": execution.pipeline,
                "PipelineArn": execution.pipeline_arn,
            },
            "Parameters": self._parameters,
        }
        return follow(known.get(kind), rest, path)

    async def _described(self, step: Step) -> Any:
        """What DescribeJob says of a step's job; nothing of other steps."""
        if "job" not in step.metadata:
            return {}
        _, category, name = step.metadata["job"]["arn"].rsplit("/", 2)
        members = await describe_job(self._control, job_name=name, job_category=category)
        model = aws_json.load_control_model()
        return encode_shape(model.shapes, model.operations["DescribeJob"]["output"]["shape"], members)

    async def _keep(self, step: Step) -> None:
        await self._change(lambda execution: execution.with_step(step, now()))

    async def _change(self, change: Callable[[Execution], Execution]) -> None:
        arn, store = self.execution.arn, self._control.store
        while True:
            try:
                self.execution = await store.write((arn, ""), change_execution, arn, change, runner=store.runner)
            except StoreError as error:  # else it would be under way for ever
                log.warning("pipeline execution %s: its state cannot be stored yet: %s", arn, error)
                await asyncio.sleep(TRY_AGAIN)
            else:
                return


def _ended(execution: Execution, status: ExecutionStatus, reason: str | None = None) -> Execution:
    if execution.status is ExecutionStatus.STOPPING:
        status, reason = ExecutionStatus.STOPPED, None
    return replace(execution, status=status, failure_reason=reason, modified_at=now())


def _end(given: Mapping[str, str], arns: Mapping[str, Mapping[str, str]]) -> str:
    """The ARN of one end of an association. Raises KeyError."""
    return given["Arn"] if "Arn" in given else arns[given["Type"]][given["Name"]]
