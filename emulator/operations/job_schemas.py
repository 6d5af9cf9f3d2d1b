"""ListJobSchemaVersions and DescribeJobSchemaVersion: what a JobConfigDocument may hold."""

from __future__ import annotations

from typing import Any

from emulator.operations.control import Control, read_category, read_page_token
from emulator.protocol.errors import ResourceNotFound


async def list_job_schema_versions(
    _control: Control,
    *,
    job_category: str,
    next_token: str | None,
    max_results: int | None,  # noqa: ARG001 (one page holds all)
) -> dict[str, Any]:
    """The versions that there are. Raises ValidationException for any token: none was given."""
    from emulator.job_config import SCHEMA_VERSIONS

    read_category(job_category)
    if next_token is not None:
        read_page_token({"schemas": None}, next_token)
    return {"job_config_schemas": [{"job_config_schema_version": version} for version in SCHEMA_VERSIONS]}


async def describe_job_schema_version(
    _control: Control, *, job_category: str, job_config_schema_version: str | None
) -> dict[str, Any]:
    """The JSON Schema of a version, the newest if none is named. Raises ResourceNotFound."""
    from emulator.job_config import SCHEMA_VERSIONS, schema_text

    category = read_category(job_category)
    version = job_config_schema_version or SCHEMA_VERSIONS[-1]
    if version not in SCHEMA_VERSIONS:
        raise ResourceNotFound(f"There is no schema version {version} of {category}, only {SCHEMA_VERSIONS[-1]}")
    return {
        "job_category": category,
        "job_config_schema_version": version,
        "job_config_schema": schema_text(category, version),
    }
