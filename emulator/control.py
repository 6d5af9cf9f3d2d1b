"""The control plane: its operations by their targets, and the jobs that they begin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from emulator.admission import Admission
from emulator.calls import Calls
from emulator.job import JobArn
from emulator.operations.control import Control
from emulator.operations.create_job import create_job
from emulator.operations.delete_job import delete_job
from emulator.operations.describe_job import describe_job
from emulator.operations.job_schemas import describe_job_schema_version, list_job_schema_versions
from emulator.operations.list_jobs import list_jobs
from emulator.operations.pipeline_executions import (
    describe_pipeline_definition_for_execution,
    describe_pipeline_execution,
    list_pipeline_execution_steps,
    list_pipeline_executions,
    list_pipeline_parameters_for_execution,
)
from emulator.operations.start_pipeline_execution import start_pipeline_execution
from emulator.operations.stop_job import stop_job
from emulator.operations.stop_pipeline_execution import stop_pipeline_execution
from emulator.operations.tags import add_tags, delete_tags, list_tags
from emulator.protocol import aws_json
from emulator.protocol.answer import Answer
from emulator.protocol.endpoint import Endpoint
from emulator.protocol.errors import ValidationException, aws_json_body
from emulator.protocol.shapes import encode_shape
from emulator.settings import Settings
from emulator.sharing import Sharing
from emulator.store import Store
from emulator.store.jobs import active_jobs
from emulator.store.pipelines import executions_under_way

if TYPE_CHECKING:
    from emulator.job import Job
    from emulator.pipeline import Execution
    from emulator.pipeline_runs import PipelineRuns
    from emulator.trainer.jobs.agents import CreatedFunction
    from emulator.trainer.jobs.aws import AWS
    from emulator.trainer.jobs.runner import Jobs
    from emulator.trainer.jobs.services import Services
    from emulator.trainer.mlflow.server import MlflowServer

#: Answers AddTags, ListTags or DeleteTags, by name and members on the wire, for what is no job of ours.
TagsOfOthers = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]

#: By their names in the control plane's model; each takes the members of its input, and gives its output's.
CONTROL_OPERATIONS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "CreateJob": create_job,
    "DescribeJob": describe_job,
    "ListJobs": list_jobs,
    "StopJob": stop_job,
    "DeleteJob": delete_job,
    "ListJobSchemaVersions": list_job_schema_versions,
    "DescribeJobSchemaVersion": describe_job_schema_version,
    "AddTags": add_tags,
    "ListTags": list_tags,
    "DeleteTags": delete_tags,
    # Of pipelines, which are moto's, the executions.
    "StartPipelineExecution": start_pipeline_execution,
    "StopPipelineExecution": stop_pipeline_execution,
    "DescribePipelineExecution": describe_pipeline_execution,
    "ListPipelineExecutions": list_pipeline_executions,
    "ListPipelineExecutionSteps": list_pipeline_execution_steps,
    "DescribePipelineDefinitionForExecution": describe_pipeline_definition_for_execution,
    "ListPipelineParametersForExecution": list_pipeline_parameters_for_execution,
}

TAG_OPERATIONS = ("AddTags", "ListTags", "DeleteTags")


class ControlPlane:
    """CreateJob and its family, and the jobs under way."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        url: str,
        *,
        mlflow: MlflowServer | None,
        calls: Calls,
        admission: Admission,
        created_function: CreatedFunction,
        tags_of_others: TagsOfOthers,
    ) -> None:
        """`url`: where this server is reached; `mlflow`: who hears of jobs.

        Raises InvalidSetting for agents that are none.
        """
        self._store = store
        if settings.agents:
            from emulator.trainer.jobs.agents import check_agents

            check_agents(settings.agent_map)

        def make_services() -> Services:
            from emulator.trainer.jobs import composition

            return composition.make_services(
                settings, url, store=store, conduct=calls.conduct, mlflow=mlflow, created_function=created_function
            )

        self._make_services = make_services
        self._make_cloud = partial(_make_cloud, settings, url)
        self._jobs: Jobs | None = None
        self._pipelines: PipelineRuns | None = None
        self._is_leaving = False
        self._sharing: Sharing | None = None
        if store.runner is not None:
            self._sharing = Sharing(store, store.runner, self._runner, self._pipeline_runner)
        control = Control(store, self, self, settings.region, settings.own_account, settings.limits == "aws")
        self._control = control
        #: By what `X-Amz-Target` says.
        self.endpoints = {
            f"{aws_json.TARGET}{name}": Endpoint(
                name,
                partial(_answer_tags, name, partial(function, control), tags_of_others)
                if name in TAG_OPERATIONS
                else partial(_answer, name, partial(function, control)),
                partial(aws_json.decode, name),
                calls=calls,
                error_body=aws_json_body,
                authenticate=admission.authenticate,
                authorize=admission.authorize,
                max_request_bytes=settings.max_request_bytes,
            )
            for name, function in CONTROL_OPERATIONS.items()
        }

    async def start(self) -> None:
        """Go on with the jobs that a server before this one, or beside it, has left. Raises StoreError."""
        if self._sharing is not None:
            await self._sharing.start()
            return
        for job in await self._store.write(("", ""), active_jobs):
            self._runner().resume(job)
        for execution in await self._store.write(("", ""), executions_under_way):
            self._pipeline_runner().resume(execution)

    def leave_off(self) -> None:
        """Begin to leave off where pipelines and jobs are, and begin with none: the server is stopping."""
        self._is_leaving = True
        if self._sharing is not None:
            self._sharing.end()
        if self._pipelines is not None:
            self._pipelines.leave_off()
        if self._jobs is not None:
            self._jobs.leave_off()

    async def aclose(self) -> None:
        """Returns when pipelines and jobs have been left off where they are."""
        if self._sharing is not None:
            self._sharing.end()
        if self._pipelines is not None:
            await self._pipelines.aclose()
        if self._jobs is not None:
            await self._jobs.aclose()
        if self._sharing is not None:
            await self._sharing.leave()

    async def break_off(self) -> None:
        """Leave pipelines and jobs off where they are: they are about to be forgotten."""
        if self._pipelines is not None:
            await self._pipelines.aclose()
        if self._jobs is not None:
            await self._jobs.break_off()

    def begin(self, job: Job) -> None:
        """Start on a job that was just stored; where the server is stopping, the next one will."""
        if not self._is_leaving:
            self._runner().begin(job)

    def stop(self, arn: str) -> None:
        """Have a job under way end soon."""
        self._runner().stop(arn)

    async def find_pipeline(self, name: str) -> tuple[str, str] | None:
        """A pipeline's ARN and definition. Raises ValidationException."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await self._make_cloud().find_pipeline(name)
        except (BotoCoreError, ClientError) as error:
            raise ValidationException(f"Pipeline {name} cannot be asked for: {error}") from None

    def begin_execution(self, execution: Execution) -> None:
        """Start on a pipeline execution that was just stored; where the server is stopping, the next one will."""
        if not self._is_leaving:
            self._pipeline_runner().begin(execution)

    def stop_execution(self, arn: str) -> None:
        """Have a pipeline execution end soon."""
        self._pipeline_runner().stop(arn)

    def _pipeline_runner(self) -> PipelineRuns:
        if self._pipelines is None:
            from emulator.pipeline_runs import PipelineRuns

            self._pipelines = PipelineRuns(self._control, self._make_cloud())
            if self._sharing is not None:
                self._sharing.executions = self._pipelines
        return self._pipelines

    def _runner(self) -> Jobs:
        if self._jobs is None:
            from emulator.trainer.jobs.runner import Jobs

            self._jobs = Jobs(self._make_services())
            if self._sharing is not None:
                self._sharing.jobs = self._jobs
        return self._jobs


async def _answer(name: str, function: Callable[..., Awaitable[Mapping[str, Any]]], **members: Any) -> Answer:
    known = signature(function).parameters
    for member in members.keys() - known.keys():  # of a botocore that is newer than we are
        if members.pop(member) is not None:
            raise ValidationException(f"{name}: {aws_json.wire_name(name, member)} is not emulated")
    return aws_json.answer(name, await function(**members))


async def _answer_tags(
    name: str, function: Callable[..., Awaitable[Mapping[str, Any]]], others: TagsOfOthers, /, **members: Any
) -> Answer:
    if JobArn.is_one(members["resource_arn"]):
        return await _answer(name, function, **members)
    model = aws_json.load_control_model()
    return await others(name, encode_shape(model.shapes, model.operations[name]["input"]["shape"], members))


def _make_cloud(settings: Settings, url: str) -> AWS:
    from emulator.trainer.jobs.composition import make_cloud  # it brings botocore

    return make_cloud(settings, url)
