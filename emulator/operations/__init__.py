"""What the API does: a module an operation. This table is the router, and what the contract tests go through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from emulator.operations.complete_rollout import complete_rollout
from emulator.operations.control import Control
from emulator.operations.create_job import create_job
from emulator.operations.delete_job import delete_job
from emulator.operations.describe_job import describe_job
from emulator.operations.job_schemas import describe_job_schema_version, list_job_schema_versions
from emulator.operations.list_jobs import list_jobs
from emulator.operations.openai import list_models, openai_chat_completion, openai_completion
from emulator.operations.pipeline_executions import (
    describe_pipeline_definition_for_execution,
    describe_pipeline_execution,
    list_pipeline_execution_steps,
    list_pipeline_executions,
    list_pipeline_parameters_for_execution,
)
from emulator.operations.runtime import Runtime
from emulator.operations.sample import sample
from emulator.operations.sample_with_response_stream import sample_with_response_stream
from emulator.operations.start_pipeline_execution import start_pipeline_execution
from emulator.operations.stop_job import stop_job
from emulator.operations.stop_pipeline_execution import stop_pipeline_execution
from emulator.operations.tags import add_tags, delete_tags, list_tags
from emulator.operations.update_reward import update_reward
from emulator.protocol.answer import Answer, StreamAnswer

__all__ = ["CONTROL_OPERATIONS", "OPENAI_PREFIXES", "OPERATIONS", "Control", "Operation", "Runtime"]

# ASSUMED: `/v1/chat/completions` is known; the other paths of an OpenAI-style server are served as well.
#: Where the OpenAI-style paths begin; the SDK's own examples leave `/v1` out.
OPENAI_PREFIXES = ("/v1", "", "/openai/v1")


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table: a function, and where clients find it.

    `model` names the operation of the service model whose members the function takes as keywords; None: it takes none.
    """

    name: str
    function: Callable[..., Awaitable[Answer | StreamAnswer]]
    model: str | None
    paths: tuple[str, ...]
    method: str = "POST"
    openai: bool = False


def _openai_paths(path: str) -> tuple[str, ...]:
    return tuple(prefix + path for prefix in OPENAI_PREFIXES)


OPERATIONS = (
    Operation("Sample", sample, "Sample", ("/sample",)),
    Operation(
        "SampleWithResponseStream",
        sample_with_response_stream,
        "SampleWithResponseStream",
        ("/sample-with-response-stream",),
    ),
    Operation("CompleteRollout", complete_rollout, "CompleteRollout", ("/complete-rollout",)),
    Operation("UpdateReward", update_reward, "UpdateReward", ("/update-reward",)),
    Operation("ChatCompletions", openai_chat_completion, "Sample", _openai_paths("/chat/completions"), openai=True),
    Operation("Completions", openai_completion, "Sample", _openai_paths("/completions"), openai=True),
    Operation("ListModels", list_models, None, _openai_paths("/models"), method="GET", openai=True),
)

#: Of the control plane, by their names in its model: each takes the members of its input and gives its output's.
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
