"""A botocore that is newer than the emulator: its model has members that no operation here knows."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import httpx2
import pytest

from emulator.control import CONTROL_OPERATIONS
from emulator.protocol import aws_json
from emulator.testing import running_server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server whose model of every operation has one member more."""
    found = aws_json.load_control_model()
    shapes = dict(found.shapes)
    for name in CONTROL_OPERATIONS:
        shape = copy(shapes[found.operations[name]["input"]["shape"]])
        shape["members"] = {**shape["members"], "OfTomorrow": {"shape": "NextToken"}}
        shapes[found.operations[name]["input"]["shape"]] = shape
    with pytest.MonkeyPatch.context() as patch, running_server() as server:
        patch.setattr(aws_json, "load_control_model", lambda: aws_json.ControlModel(found.operations, shapes))
        yield server.url


def call(url: str, operation: str, **members: str) -> httpx2.Response:
    return httpx2.post(url, json=members, headers={"X-Amz-Target": f"SageMaker.{operation}"})


def test_what_nobody_gives_is_not_missed(url: str) -> None:
    reply = call(url, "ListJobs", JobCategory="AgentRFT")
    assert (reply.status_code, reply.json()["JobSummaries"]) == (200, [])


def test_what_is_given_is_refused_by_its_name(url: str) -> None:
    reply = call(url, "ListJobs", JobCategory="AgentRFT", OfTomorrow="x")
    assert reply.status_code == 400
    assert reply.json()["message"] == "ListJobs: OfTomorrow is not emulated"


@pytest.mark.parametrize("operation", CONTROL_OPERATIONS)
def test_no_operation_fails_at_it(operation: str, url: str) -> None:
    assert call(url, operation).status_code < 500
