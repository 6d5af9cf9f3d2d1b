"""StopPipelineExecution: end an execution, and the jobs that it has begun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emulator.operations.control import Control, to_its_end
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
    arn = pipeline_execution_arn

    async def stop() -> None:
        await control.store.write((arn, ""), change_execution, arn, _stopping)
        control.pipelines.stop_execution(arn)

    await to_its_end(stop())
    return {"pipeline_execution_arn": pipeline_execution_arn}


def _stopping(execution: Execution) -> Execution:
    if execution.status not in UNDER_WAY:
        # ASSUMED: the error, and its wording.
        raise ExecutionEnded(f"Pipeline execution {execution.arn} is {execution.status}, and cannot be stopped")
    if execution.status is ExecutionStatus.STOPPING:
        return execution
    return replace(execution, status=ExecutionStatus.STOPPING, modified_at=now())
