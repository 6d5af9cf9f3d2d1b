"""AddTags, ListTags, DeleteTags: of jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from emulator.job import Job, TooManyTags
from emulator.operations.control import CONTROL_ERRORS, Control, control_error, read_page_token
from emulator.store.jobs import change_job

#: The service model's limit of a TagList.
MOST_TAGS = 50


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as they are answered."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def merge_tags(tags: Mapping[str, str], more: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Tags with others added; of equal keys the last one holds. Raises TooManyTags."""
    merged = {**tags, **{tag["key"]: tag["value"] for tag in more}}
    if len(merged) > MOST_TAGS:
        raise TooManyTags(f"A job has at most {MOST_TAGS} tags")
    return merged


async def add_tags(control: Control, *, resource_arn: str, tags: list[dict[str, str]]) -> dict[str, Any]:
    """Add tags to a job; all that it has then. Raises ResourceNotFound, ValidationException, InternalServiceError."""
    job = await _change(control, resource_arn, partial(_added, more=tags))
    return {"tags": tag_list(job.tags)}


async def list_tags(
    control: Control,
    *,
    resource_arn: str,
    next_token: str | None,
    max_results: int | None,  # noqa: ARG001 (one page holds all)
) -> dict[str, Any]:
    """The tags of a job. Raises ResourceNotFound, InternalServiceError."""
    if next_token is not None:
        read_page_token({"tags": None}, next_token)
    return {"tags": tag_list((await control.find_by_arn(resource_arn)).tags)}


async def delete_tags(control: Control, *, resource_arn: str, tag_keys: list[str]) -> dict[str, Any]:
    """Take tags from a job; those that it has not do not matter. Raises ResourceNotFound, InternalServiceError."""
    await _change(control, resource_arn, partial(_without, keys=tag_keys))
    return {}


def _added(job: Job, more: Sequence[Mapping[str, str]]) -> Job:
    return replace(job, tags=merge_tags(job.tags, more))


def _without(job: Job, keys: Sequence[str]) -> Job:
    return replace(job, tags={key: value for key, value in job.tags.items() if key not in keys})


async def _change(control: Control, arn: str, change: Any) -> Job:
    try:
        return await control.store.write((arn, ""), change_job, arn, change)
    except CONTROL_ERRORS as error:
        raise control_error(error) from error
