"""CreateJob: store a job, and begin with it."""

from __future__ import annotations

import asyncio
from typing import Any

from emulator.job import Job, SecondaryStatus, TooManyTags, Transition
from emulator.operations.control import Control, control_error, read_category, to_its_end
from emulator.operations.tags import merge_tags
from emulator.protocol.errors import ResourceNotFound, ValidationException
from emulator.store import now
from emulator.store.jobs import create_job as store_job


async def create_job(
    control: Control,
    *,
    job_name: str,
    role_arn: str,
    job_category: str,
    job_config_schema_version: str,
    job_config_document: str,
    tags: list[dict[str, str]] | None,
) -> dict[str, Any]:
    """Store a job and begin with it.

    Raises ValidationException for a document that does not fit its schema, ResourceNotFound for a schema version that
    there is not, ResourceInUse for a name that is taken, ResourceLimitExceeded, InternalServiceError.
    """
    from emulator.job_config import SCHEMA_VERSIONS, InvalidDocument, read_config

    category = read_category(job_category)
    if job_config_schema_version not in SCHEMA_VERSIONS:
        raise ResourceNotFound(
            f"There is no schema version {job_config_schema_version} of {category}, only {SCHEMA_VERSIONS[-1]}"
        )
    try:
        await asyncio.to_thread(
            read_config, category, job_config_schema_version, job_config_document, strict=control.aws_limits
        )
    except InvalidDocument as error:
        raise ValidationException(str(error)) from error
    created_at = now()
    try:
        own_tags = merge_tags({}, tags or [])
    except TooManyTags as error:
        raise control_error(error) from error
    job = Job(
        arn=control.arn(category, job_name),
        category=category,
        name=job_name,
        role_arn=role_arn,
        schema_version=job_config_schema_version,
        document=job_config_document,
        created_at=created_at,
        modified_at=created_at,
        transitions=(Transition(SecondaryStatus.STARTING, created_at, message="Job created"),),
        tags=own_tags,
    )

    async def create() -> None:
        # Not as what concerns this job: how many there are is asked before anything else of the transaction is locked.
        await control.store.write(
            ("", ""), store_job, job, most_active=1 if control.aws_limits else None, runner=control.store.runner
        )
        control.runner.begin(job)

    await to_its_end(create())
    return {"job_arn": job.arn}
