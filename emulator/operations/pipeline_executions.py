"""What is known of pipeline executions: DescribePipelineExecution and its siblings."""

from __future__ import annotations

from typing import Any

from emulator.operations.control import DEFAULT_PAGE, Control, control_error, page_token, read_page_token
from emulator.pipeline import Execution, Step
from emulator.protocol.errors import ResourceNotFound
from emulator.store import StoreError
from emulator.store.pipelines import ExecutionNotFound, find_execution
from emulator.store.pipelines import list_executions as read_executions


async def describe_pipeline_execution(control: Control, *, pipeline_execution_arn: str) -> dict[str, Any]:
    """Where an execution stands. Raises ResourceNotFound, InternalServiceError."""
    execution = await _find(control, pipeline_execution_arn)
    return {
        "pipeline_arn": execution.pipeline_arn,
        "pipeline_execution_arn": execution.arn,
        "pipeline_execution_display_name": execution.display_name,
        "pipeline_execution_status": execution.status,
        "pipeline_execution_description": execution.description,
        "failure_reason": execution.failure_reason,
        "creation_time": execution.created_at,
        "last_modified_time": execution.modified_at,
        "created_by": {},
        "last_modified_by": {},
    }


async def list_pipeline_executions(
    control: Control,
    *,
    pipeline_name: str,
    created_after: int | None,
    created_before: int | None,
    sort_by: str | None,
    sort_order: str | None,
    next_token: str | None,
    max_results: int | None,
) -> dict[str, Any]:
    """A pipeline's executions, the newest first. Raises ResourceNotFound, ValidationException, InternalServiceError."""
    name, by, order = pipeline_name.rpartition("/")[2], sort_by or "CreationTime", sort_order or "Descending"
    question = {"pipeline": name, "after": created_after, "before": created_before, "by": by, "order": order}
    kind = int if by == "CreationTime" else str
    place = read_page_token(question, next_token, kind, int) if next_token is not None else None
    size = max_results or DEFAULT_PAGE
    try:
        found = await control.store.read_patiently(
            read_executions, name, created_after=created_after, created_before=created_before, sort_by=by,
            descending=order == "Descending", limit=size + 1, after=(place[0], place[1]) if place else None,
        )  # fmt: skip
    except StoreError as error:
        raise control_error(error) from error
    if not found and place is None and await control.pipelines.find_pipeline(name) is None:
        raise ResourceNotFound(f"Pipeline '{pipeline_name}' does not exist.")
    more = len(found) > size
    return {
        "pipeline_execution_summaries": [_summary(execution) for execution, _ in found[:size]],
        "next_token": page_token(question, found[size - 1][1]) if more else None,
    }


async def list_pipeline_execution_steps(
    control: Control,
    *,
    pipeline_execution_arn: str | None,
    next_token: str | None,
    max_results: int | None,
    sort_order: str | None,
) -> dict[str, Any]:
    """Steps that have begun, the newest first. Raises ResourceNotFound, ValidationException, InternalServiceError."""
    execution = await _find(control, pipeline_execution_arn or "")
    steps = execution.steps if sort_order == "Ascending" else execution.steps[::-1]
    question = {"steps": execution.arn, "order": sort_order}
    start = read_page_token(question, next_token, int)[0] if next_token is not None else 0
    end = start + (max_results or DEFAULT_PAGE)
    return {
        "pipeline_execution_steps": [_step(step) for step in steps[start:end]],
        "next_token": page_token(question, [end]) if end < len(steps) else None,
    }


async def describe_pipeline_definition_for_execution(
    control: Control, *, pipeline_execution_arn: str
) -> dict[str, Any]:
    """The definition as it was when the execution began. Raises ResourceNotFound, InternalServiceError."""
    execution = await _find(control, pipeline_execution_arn)
    return {"pipeline_definition": execution.definition, "creation_time": execution.created_at}


async def list_pipeline_parameters_for_execution(
    control: Control,
    *,
    pipeline_execution_arn: str,
    next_token: str | None,
    max_results: int | None,  # noqa: ARG001 (one page holds all)
) -> dict[str, Any]:
    """The parameters of an execution. Raises ResourceNotFound, ValidationException, InternalServiceError."""
    if next_token is not None:
        read_page_token({"parameters": None}, next_token)
    execution = await _find(control, pipeline_execution_arn)
    return {"pipeline_parameters": [{"name": name, "value": value} for name, value in execution.parameters.items()]}


async def _find(control: Control, arn: str) -> Execution:
    try:
        execution = await control.store.read_patiently(find_execution, arn)
    except StoreError as error:
        raise control_error(error) from error
    if execution is None:
        raise control_error(ExecutionNotFound(f"Pipeline execution with ARN {arn} does not exist."))
    return execution


def _summary(execution: Execution) -> dict[str, Any]:
    return {
        "pipeline_execution_arn": execution.arn,
        "start_time": execution.created_at,
        "pipeline_execution_status": execution.status,
        "pipeline_execution_description": execution.description,
        "pipeline_execution_display_name": execution.display_name,
        "pipeline_execution_failure_reason": execution.failure_reason,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "step_name": step.name,
        "start_time": step.started_at,
        "end_time": step.ended_at,
        "step_status": step.status,
        "failure_reason": step.failure_reason,
        "metadata": step.metadata,
        "attempt_count": 1,
    }
