"""StopPipelineExecution: end an execution, and the jobs that it has begun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emulator.operations.control import CONTROL_ERRORS, Control, control_error
from emulator.pipeline import UNDER_WAY, Execution, ExecutionStatus, PipelineError
from emulator.store import now
from emulator.store.pipelines import change_execution


class ExecutionEnded(PipelineError):
    """An execution is over already."""


async def stop_pipeline_execution(
    control: Control,
    *,
    pipeline_execution_arn: str,
    client_request_token: str,  # noqa: ARG001 (once more, it changes nothing)
) -> dict[str, Any]:
    """Have an execution stop.

    Raises ResourceNotFound, ValidationException for one that has ended, InternalServiceError.
    """
    try:
        await control.store.write((pipeline_execution_arn, ""), change_execution, pipeline_execution_arn, _stopping)
    except CONTROL_ERRORS as error:
        raise control_error(error) from error
    control.pipelines.stop_execution(pipeline_execution_arn)
    return {"pipeline_execution_arn": pipeline_execution_arn}


def _stopping(execution: Execution) -> Execution:
    if execution.status not in UNDER_WAY:
        # ASSUMED: the error, and its wording.
        raise ExecutionEnded(f"Pipeline execution {execution.arn} is {execution.status}, and cannot be stopped")
    if execution.status is ExecutionStatus.STOPPING:
        return execution
    return replace(execution, status=ExecutionStatus.STOPPING, modified_at=now())
