"""StartPipelineExecution: take the definition as it is now, and begin with its steps."""

from __future__ import annotations

import secrets
import string
from typing import Any

from emulator.operations.control import Control, to_its_end
from emulator.pipeline import Execution, InvalidDefinition, read_definition
from emulator.protocol.errors import ResourceNotFound, ValidationException
from emulator.store import now
from emulator.store.pipelines import create_execution


async def start_pipeline_execution(
    control: Control,
    *,
    pipeline_name: str,
    pipeline_execution_display_name: str | None,
    pipeline_parameters: list[dict[str, str]] | None,
    pipeline_execution_description: str | None,
    client_request_token: str,
    parallelism_configuration: dict[str, Any] | None,  # noqa: ARG001 (as many at once as there are)
    selective_execution_config: dict[str, Any] | None,
    pipeline_version_id: int | None,
    mlflow_experiment_name: str | None,  # noqa: ARG001 (jobs name their own)
) -> dict[str, Any]:
    """Begin with a pipeline; once more with the same token begins nothing.

    Raises ResourceNotFound, ValidationException for a definition that cannot be run, InternalServiceError.
    """
    if selective_execution_config is not None or pipeline_version_id is not None:
        raise ValidationException("SelectiveExecutionConfig and PipelineVersionId are not emulated")
    found = await control.pipelines.find_pipeline(pipeline_name.rpartition("/")[2])
    if found is None:
        raise ResourceNotFound(f"Pipeline '{pipeline_name}' does not exist.")
    arn, definition = found
    parameters = {each["name"]: each["value"] for each in pipeline_parameters or []}
    try:
        read_definition(definition, parameters)
    except InvalidDefinition as error:
        raise ValidationException(str(error)) from None
    created_at = now()
    execution_id = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
    execution = Execution(
        arn=f"{arn}/execution/{execution_id}",
        pipeline=arn.rpartition("/")[2],
        token=client_request_token,
        definition=definition,
        parameters=parameters,
        created_at=created_at,
        modified_at=created_at,
        display_name=pipeline_execution_display_name or f"execution-{created_at // 1000}",
        description=pipeline_execution_description,
    )

    async def start() -> Execution:
        stored, is_new = await control.store.write(
            (execution.arn, ""), create_execution, execution, runner=control.store.runner
        )
        if is_new:
            control.pipelines.begin_execution(stored)
        return stored

    return {"pipeline_execution_arn": (await to_its_end(start())).arn}
