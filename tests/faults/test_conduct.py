"""A verdict on agents that really misbehave, and on some that do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from botocore.exceptions import ClientError

from emulator.faults import Fault
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from emulator.verdict import BACK_OFF
from tests.clients.aws import runtime_client
from tests.clients.rollouts import Conversation
from tests.conftest import JOB_ARN
from tests.faults.conftest import Rollout, ids
from tests.managed import assert_error
from tests.model_servers import Exchange, Gate, model_server

BODY = Conversation().request()


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Rollout]:
    """A rollout in an emulator in which there are no others."""
    settings = Settings(port=0, database=str(tmp_path / "t.db"), durability="normal")
    with running_server(settings) as server, runtime_client(server.url) as client:
        yield Rollout(server, client, {"JobArn": JOB_ARN, "TrajectoryId": f"t-{next(ids)}"})


def verdict(server: Server, **parameters: str) -> dict[str, Any]:
    answer = httpx2.get(f"{server.url}/_emulator/verdict", params=parameters)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def found(rollout: Rollout) -> list[dict[str, Any]]:
    """What is found in this rollout."""
    findings: list[dict[str, Any]] = verdict(rollout.server, trajectory=rollout.trajectory_id)["findings"]
    assert {finding["trajectory_id"] for finding in findings} <= {rollout.trajectory_id}
    return findings


def finish(rollout: Rollout) -> None:
    rollout.client.complete_rollout(**rollout.key)
    rollout.client.update_reward(**rollout.key, Rewards=[1.0])


def test_a_clean_agent_gets_an_empty_verdict(lonely: Rollout) -> None:
    lonely.client.sample(**lonely.key, Body=BODY)
    finish(lonely)
    document = verdict(lonely.server)
    assert document.pop("as_of")
    assert document == {"trajectories": 1, "counts": {}, "findings": [], "left_off": 0}


def test_an_agent_that_pauses_before_it_asks_again_gets_an_empty_verdict_too(rollout: Rollout) -> None:
    rollout.faults.add(Fault("error", error="InternalServiceError", times=1))
    with pytest.raises(rollout.client.exceptions.InternalServiceError):
        rollout.client.sample(**rollout.key, Body=BODY)
    time.sleep(2 * BACK_OFF)  # as agents do
    rollout.client.sample(**rollout.key, Body=BODY)
    finish(rollout)
    assert found(rollout) == []


def test_the_openai_client_heeds_retry_after(rollout: Rollout) -> None:
    rollout.faults.add(Fault("rate-limit", retry_after=0.2, times=1))
    headers = {"X-Amzn-SageMaker-Job-Arn": JOB_ARN, "X-Amzn-SageMaker-Trajectory-Id": rollout.trajectory_id}
    with openai.OpenAI(base_url=f"{rollout.server.url}/v1", api_key="local", default_headers=headers) as client:
        client.chat.completions.create(model="default", messages=[{"role": "user", "content": "Hello"}])
    finish(rollout)
    assert found(rollout) == []


def test_boto3_does_not_heed_retry_after(rollout: Rollout, pauses: list[float]) -> None:
    rollout.faults.add(Fault("rate-limit", retry_after=30, times=1))
    with runtime_client(rollout.server.url, attempts=2) as hasty:
        hasty.sample(**rollout.key, Body=BODY)
    finish(rollout)
    (finding,) = found(rollout)
    assert finding["kind"] == "ignored-retry-after"
    (evidence,) = finding["evidence"]
    assert evidence["retry_after"] == "30"
    assert evidence["by_sdk"] is True
    assert evidence["again_after"] < 28


def test_an_agent_that_asks_again_and_again_is_found_out(rollout: Rollout) -> None:
    rollout.faults.add(Fault("error", error="ThrottlingException", times=20))
    request_ids, answered = [], False
    while not answered:
        try:
            rollout.client.sample(**rollout.key, Body=BODY)
            answered = True
        except ClientError as error:
            request_ids.append(error.response["ResponseMetadata"]["RequestId"])
    finish(rollout)
    (finding,) = found(rollout)
    assert finding["kind"] == "no-back-off"
    assert {evidence["request_id"] for evidence in finding["evidence"]} <= set(request_ids)


def test_a_request_that_is_wrong_in_itself_is_sent_in_vain(rollout: Rollout) -> None:
    rollout.client.sample(**rollout.key, Body=BODY)
    for _ in range(2):
        with pytest.raises(rollout.client.exceptions.ValidationException):
            rollout.client.sample(**rollout.key, Body=b'{"messages": "hello"}')
    finish(rollout)
    assert [finding["kind"] for finding in found(rollout)] == ["retried-in-vain"]


def test_whoever_does_not_mind_the_state_of_the_trajectory_is_found_out(rollout: Rollout) -> None:
    client, key = rollout.client, rollout.key
    refused = client.exceptions
    client.sample(**key, Body=BODY)
    with pytest.raises(refused.ConflictException):
        client.update_reward(**key, Rewards=[1.0])
    client.complete_rollout(**key)
    with pytest.raises(refused.ConflictException):
        client.complete_rollout(**key)
    with pytest.raises(refused.ValidationException):
        client.sample(**key, Body=BODY)
    with pytest.raises(refused.ValidationException):
        client.update_reward(**key, Rewards=[1.0, 2.0])
    client.update_reward(**key, Rewards=[1.0])
    counts = {finding["kind"]: finding["count"] for finding in found(rollout)}
    assert counts == {"sampled-after-seal": 1, "conflict": 2, "reward-count": 1}


def test_who_seals_while_a_turn_is_under_way_is_found_out(database: Path) -> None:
    gate = Gate()

    async def slow(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: {}\n\n"])
        await gate.passed()
        await exchange.chunks([b"data: [DONE]\n\n"])
        await exchange.end()

    with (
        model_server(slow) as model,
        running_server(Settings(port=0, database=str(database), model=model.url)) as server,
        runtime_client(server.url) as client,
    ):
        rollout = Rollout(server, client, {"JobArn": JOB_ARN, "TrajectoryId": "hasty"})
        body = client.sample_with_response_stream(**rollout.key, Body=BODY)["Body"]
        client.complete_rollout(**rollout.key, Status="failed")
        gate.open()
        body.read()
        client.update_reward(**rollout.key, Rewards=[0.0])
        assert [finding["kind"] for finding in found(rollout)] == ["sealed-while-sampling"]


def test_what_is_left_unfinished_is_found_as_of_now_or_when_its_time_is_over(rollout: Rollout) -> None:
    rollout.client.sample(**rollout.key, Body=BODY)
    assert [finding["kind"] for finding in found(rollout)] == ["never-sealed"]
    rollout.client.complete_rollout(**rollout.key)
    assert [finding["kind"] for finding in found(rollout)] == ["sealed-without-reward"]
    later = verdict(rollout.server, trajectory=rollout.trajectory_id, timeout="600")
    assert later["findings"] == []


def test_a_rollout_whose_every_call_was_refused_is_judged_as_well(lonely: Rollout) -> None:
    lonely.faults.add(Fault("rate-limit", retry_after=60))
    for _ in range(3):
        with pytest.raises(lonely.client.exceptions.ThrottlingException):
            lonely.client.sample(**lonely.key, Body=BODY)
    document = verdict(lonely.server)
    assert document["trajectories"] == 1
    assert document["counts"] == {"ignored-retry-after": 1}
    assert document["findings"][0]["count"] == 2


def test_a_verdict_may_be_of_one_job(lonely: Rollout) -> None:
    other = JOB_ARN + "-2"
    for job_arn in (JOB_ARN, other):
        lonely.client.sample(JobArn=job_arn, TrajectoryId="t", Body=BODY)
    assert verdict(lonely.server)["counts"] == {"never-sealed": 2}
    (finding,) = verdict(lonely.server, job=other)["findings"]
    assert finding["job_arn"] == other
    (finding,) = verdict(lonely.server, job=JOB_ARN, trajectory="t")["findings"]
    assert finding["job_arn"] == JOB_ARN


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"jobs": "x"}, "There is no parameter 'jobs'; there are job, trajectory, timeout"),
        ({"job": "x"}, "job: "),
        ({"timeout": "soon"}, "timeout: 'soon' is not a number of seconds"),
        ({"timeout": "-1"}, "timeout: '-1' is not a number of seconds"),
        ({"timeout": "nan"}, "timeout: 'nan' is not a number of seconds"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, str], reason: str, emulator: Server) -> None:
    answer = httpx2.get(f"{emulator.url}/_emulator/verdict", params=parameters)
    assert reason in assert_error(answer, 400, "ValidationException")


def test_a_reset_forgets_how_agents_behaved(lonely: Rollout) -> None:
    with pytest.raises(lonely.client.exceptions.ResourceNotFoundException):
        lonely.client.complete_rollout(**lonely.key)
    assert verdict(lonely.server)["trajectories"] == 1
    httpx2.post(f"{lonely.server.url}/_emulator/reset")
    assert verdict(lonely.server)["trajectories"] == 0


def test_nothing_is_remembered_of_rollouts_without_errors(lonely: Rollout) -> None:
    lonely.client.sample(**lonely.key, Body=BODY)
    assert not lonely.server.app.conduct.trajectories
    with pytest.raises(lonely.client.exceptions.ResourceNotFoundException):
        lonely.client.complete_rollout(JobArn=JOB_ARN, TrajectoryId="another")
    finish(lonely)
    assert list(lonely.server.app.conduct.trajectories) == [(JOB_ARN, "another")]
