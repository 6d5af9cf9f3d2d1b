"""DescribeJob: all that is known of a job."""

from __future__ import annotations

import json
from typing import Any

from emulator.job import Job
from emulator.operations.control import Control, read_category
from emulator.operations.tags import tag_list


async def describe_job(control: Control, *, job_name: str, job_category: str) -> dict[str, Any]:
    """A job, its document with what has come out so far as `ServiceOutput`.

    Raises ResourceNotFound, InternalServiceError.
    """
    job = await control.find(read_category(job_category), job_name)
    return {
        "job_name": job.name,
        "job_arn": job.arn,
        "role_arn": job.role_arn,
        "job_category": job.category,
        "job_config_schema_version": job.schema_version,
        "job_config_document": _with_output(job),
        "creation_time": job.created_at,
        "last_modified_time": job.modified_at,
        "end_time": job.ended_at,
        "job_status": job.status,
        "secondary_status": job.secondary_status,
        "secondary_status_transitions": [
            {"status": each.status, "start_time": each.start, "end_time": each.end, "status_message": each.message}
            for each in job.transitions
        ],
        "failure_reason": job.failure_reason,
        "tags": tag_list(job.tags),
    }


def _with_output(job: Job) -> str:
    if not job.output:
        return job.document
    return json.dumps({**json.loads(job.document), "ServiceOutput": job.output}, separators=(",", ":"))
