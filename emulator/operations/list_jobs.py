"""ListJobs: pages of jobs."""

from __future__ import annotations

from typing import Any

from emulator.job import JobStatus
from emulator.operations.control import (
    CONTROL_ERRORS,
    Control,
    control_error,
    page_token,
    read_category,
    read_page_token,
)
from emulator.store.jobs import JobFilter
from emulator.store.jobs import list_jobs as query_jobs

#: What a page holds when the request does not say; by the service model's words.
DEFAULT_JOBS = 50


async def list_jobs(
    control: Control,
    *,
    job_category: str,
    next_token: str | None,
    max_results: int | None,
    creation_time_after: int | None,
    creation_time_before: int | None,
    last_modified_time_after: int | None,
    last_modified_time_before: int | None,
    name_contains: str | None,
    sort_by: str | None,
    sort_order: str | None,
    status_equals: str | None,
) -> dict[str, Any]:
    """A page of jobs. Its token says where in the order it ended, and so stays good when jobs come and go.

    Raises ValidationException for a token of another question, InternalServiceError.
    """
    which = JobFilter(
        category=read_category(job_category),
        name_contains=name_contains,
        status=None if status_equals is None else JobStatus(status_equals),
        created_after=creation_time_after,
        created_before=creation_time_before,
        modified_after=last_modified_time_after,
        modified_before=last_modified_time_before,
    )
    # ASSUMED: the newest first, as SageMaker's other listings have it.
    sort_by, descending = sort_by or "CreationTime", sort_order != "Ascending"
    question = {
        "category": which.category,
        "name": name_contains,
        "status": status_equals,
        "created": [creation_time_after, creation_time_before],
        "modified": [last_modified_time_after, last_modified_time_before],
        "sort": [sort_by, descending],
    }
    limit = max_results or DEFAULT_JOBS
    after: Any = None
    if next_token is not None:
        after = read_page_token(question, next_token, int if sort_by == "CreationTime" else str, int)
    try:
        found = await control.store.read_patiently(
            query_jobs,
            which,
            sort_by=sort_by,
            descending=descending,
            limit=limit + 1,  # one more tells whether there is another page
            after=after,
        )
    except CONTROL_ERRORS as error:
        raise control_error(error) from error
    page = found[:limit]
    return {
        "job_summaries": [
            {
                "job_arn": job.arn,
                "job_name": job.name,
                "job_category": job.category,
                "job_status": job.status,
                "job_secondary_status": job.secondary_status,
                "creation_time": job.created_at,
                "last_modified_time": job.modified_at,
                "end_time": job.ended_at,
            }
            for job, _ in page
        ],
        "next_token": page_token(question, page[-1][1]) if len(found) > limit else None,
    }
