"""Faults are given, looked at and cleared over HTTP and from within; what is off costs nothing and does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from emulator.faults import Fault
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.aws import runtime_client
from tests.clients.rollouts import Conversation
from tests.conftest import JOB_ARN
from tests.faults.conftest import Rollout
from tests.managed import assert_error

BODY = Conversation().request()


def faults_url(server: Server) -> str:
    return f"{server.url}/_emulator/faults"


def listed(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx2.get(faults_url(server)).json()["faults"]
    return found


def test_a_fault_that_is_posted_strikes_and_is_listed_with_how_often(emulator: Server, rollout: Rollout) -> None:
    document = {"kind": "rate-limit", "retry_after": 2, "trajectory": rollout.trajectory_id, "times": 1}
    assert httpx2.post(faults_url(emulator), json=document).json() == {"faults": [{**document, "struck": 0}]}
    with pytest.raises(rollout.client.exceptions.ThrottlingException):
        rollout.client.sample(**rollout.key, Body=BODY)
    rollout.client.sample(**rollout.key, Body=BODY)
    assert listed(emulator) == [{**document, "struck": 1}]


def test_several_faults_are_posted_at_once_or_none(emulator: Server, rollout: Rollout) -> None:
    wrong = httpx2.post(faults_url(emulator), json={"faults": [{"kind": "drop"}, {"kind": "dorp"}]})
    assert "'dorp' is no kind of fault" in assert_error(wrong, 400, "ValidationException")
    assert listed(emulator) == []
    httpx2.post(faults_url(emulator), json={"faults": [{"kind": "cut"}, {"kind": "stall"}]})
    assert [each["kind"] for each in listed(emulator)] == ["cut", "stall"]
    httpx2.post(faults_url(emulator), json={"kind": "drop"})
    assert [each["kind"] for each in listed(emulator)] == ["cut", "stall", "drop"]


@pytest.mark.parametrize(
    ("body", "error", "reason"),
    [
        (b"{", "SerializationException", "not JSON"),
        (b"[]", "ValidationException", "a fault is an object with a kind"),
        (b'{"faults": []}', "ValidationException", "a list of at least one fault"),
        (b'{"faults": {"kind": "drop"}}', "ValidationException", "a list of at least one fault"),
        (
            b'{"kind": "error", "error": "ConflictException"}',
            "ValidationException",
            "Sample models no 'ConflictException'",
        ),
    ],
)
def test_what_is_no_fault_is_refused(body: bytes, error: str, reason: str, emulator: Server, rollout: Rollout) -> None:
    assert reason in assert_error(httpx2.post(faults_url(emulator), content=body), 400, error)
    assert listed(emulator) == []


def test_deleting_them_ends_them(emulator: Server, rollout: Rollout) -> None:
    rollout.faults.add(Fault("quota"))
    assert httpx2.delete(faults_url(emulator)).status_code == 200
    assert listed(emulator) == []
    rollout.client.sample(**rollout.key, Body=BODY)


def test_other_web_sites_cannot_give_faults(emulator: Server, rollout: Rollout) -> None:
    answer = httpx2.post(faults_url(emulator), json={"kind": "drop"}, headers={"Origin": "https://example.com"})
    assert_error(answer, 403, "AccessDeniedException")
    assert listed(emulator) == []


def test_a_reset_brings_back_the_faults_of_the_plan_and_no_others(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("- {kind: quota, operation: Sample, times: 1}\n")
    settings = Settings(port=0, durability="memory", faults=str(plan))
    with running_server(settings) as server, runtime_client(server.url) as client:
        key = {"JobArn": JOB_ARN, "TrajectoryId": "t"}
        for _ in range(2):
            with pytest.raises(client.exceptions.ServiceQuotaExceededException):
                client.sample(**key, Body=BODY)
            client.sample(**key, Body=BODY)
            server.app.faults.add(Fault("model-down"))
            httpx2.post(f"{server.url}/_emulator/reset")
        assert [each["kind"] for each in listed(server)] == ["quota"]
        assert httpx2.get(f"{server.url}/_emulator/info").json()["settings"]["faults"] == str(plan)


def test_faults_that_are_given_while_samples_are_under_way_strike_the_next_ones(
    emulator: Server, rollout: Rollout
) -> None:
    for _ in range(20):
        given = rollout.faults.add(Fault("model-error", status=400))
        with pytest.raises(rollout.client.exceptions.ValidationException):
            rollout.client.sample(**rollout.key, Body=BODY)
        assert given.struck == 1
        rollout.faults.clear()
        rollout.client.sample(**rollout.key, Body=BODY)
    assert rollout.eventual_turns(40) == ["failed", "completed"] * 20


def test_without_faults_nothing_stands_in_the_way(emulator: Server, rollout: Rollout) -> None:
    app = emulator.app
    rollout.faults.add(Fault("drop"))
    assert app._runtime.model_server is not app.model_server
    rollout.faults.clear()
    assert app._runtime.model_server is app.model_server
    assert {endpoint.interfere for endpoint in app._endpoints.values()} == {None}


def test_the_openai_client_meets_the_same_faults(emulator: Server, rollout: Rollout) -> None:
    headers = {"X-Amzn-SageMaker-Job-Arn": JOB_ARN, "X-Amzn-SageMaker-Trajectory-Id": rollout.trajectory_id}
    with openai.OpenAI(
        base_url=f"{emulator.url}/v1", api_key="local", default_headers=headers, max_retries=0
    ) as client:

        def ask() -> None:
            client.chat.completions.create(model="default", messages=[{"role": "user", "content": "Hello"}])

        for fault, error, says in (
            (Fault("rate-limit", times=1, retry_after=3), openai.RateLimitError, "Rate exceeded"),
            (Fault("quota", times=1), openai.APIStatusError, "quota"),
            (Fault("expired-credentials", times=1), openai.PermissionDeniedError, "make sure your API Key is valid"),
            (Fault("error", error="InternalServiceError", times=1), openai.InternalServerError, "internal error"),
            (Fault("drop", times=1), openai.APIConnectionError, "Connection error"),
            (Fault("context-overflow", times=1), openai.BadRequestError, "maximum context length"),
            (Fault("model-error", times=1, message="busy"), openai.InternalServerError, "busy"),
        ):
            rollout.faults.add(fault)
            with pytest.raises(error, match=says):
                ask()
        ask()
    assert rollout.eventual_turns(3) == ["failed", "failed", "completed"]
