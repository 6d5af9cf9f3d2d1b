"""A botocore that is newer than the emulator: its model has members that no operation here knows."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace

import httpx2
import pytest

from emulator import app
from emulator.control import CONTROL_OPERATIONS
from emulator.protocol import aws_json
from emulator.protocol.service_model import load_service_model
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


def test_the_runtime_does_without_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_service_model()
    operations = {}
    for name, operation in found.operations.items():
        like = next(member for member in operation.members if member.keyword == "job_arn")
        later = replace(like, name="OfTomorrow", keyword="of_tomorrow", header=b"of-tomorrow", required=True)
        operations[name] = replace(operation, members=(*operation.members, later))
    monkeypatch.setattr(app, "load_service_model", lambda: replace(found, operations=operations))
    arn = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/j"
    rollout = {"X-Amzn-SageMaker-Job-Arn": arn, "X-Amzn-SageMaker-Trajectory-Id": "t"}
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    with running_server() as server:
        assert httpx2.post(f"{server.url}/sample", json=body, headers=rollout).status_code == 200
        told = {"JobArn": arn, "TrajectoryId": "t", "OfTomorrow": "x"}
        assert httpx2.post(f"{server.url}/complete-rollout", json=told).status_code == 200
