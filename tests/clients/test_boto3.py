"""boto3 does whole rollouts; `test_boto3_errors` has what it is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import openai
import pytest
from botocore.exceptions import ClientError

from emulator.commands.serve import banner
from emulator.server import Server
from tests.clients.aws import runtime_client
from tests.clients.question import ANSWER, TURNS
from tests.clients.rollouts import KEY_ID, SECRET, Conversation, message_of, scripted_answer, stored_rollout

EVENT_STREAM = "text/event-stream; charset=utf-8"


def sampled_rollout(client: Any, job_arn: str, trajectory_id: str) -> list[tuple[bytes, bytes]]:
    """A rollout whose turns are samples; the bytes of its requests and answers."""
    conversation, exchanges = Conversation(), []
    wants_more = True
    while wants_more:
        request = conversation.request()
        answer = client.sample(JobArn=job_arn, TrajectoryId=trajectory_id, Body=request)
        assert answer["ContentType"] == "application/json"
        exchanges.append((request, answer["Body"].read()))
        wants_more = conversation.take(message_of(*exchanges[-1], answer["ContentType"]))
    assert conversation.answer == ANSWER
    return exchanges


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with runtime_client(server.url) as client:
        yield client


def test_a_rollout_of_samples_is_stored_byte_for_byte(client: Any, job_arn: str, database: Path) -> None:
    exchanges = sampled_rollout(client, job_arn, "samples")
    assert len(exchanges) == TURNS
    assert [answer for _, answer in exchanges] == [scripted_answer(request) for request, _ in exchanges]
    assert stored_rollout(database, "samples").state == ("open", None, None, False)

    client.complete_rollout(JobArn=job_arn, TrajectoryId="samples")
    assert stored_rollout(database, "samples").state == ("ready", "ready", None, False)

    client.update_reward(JobArn=job_arn, TrajectoryId="samples", Rewards=[1.0])
    rollout = stored_rollout(database, "samples")
    rollout.assert_whole_rollout()
    assert rollout.exchanges == exchanges
    assert rollout.state == ("reward-received", "ready", [1.0], True)
    assert rollout.trajectory.job_arn == job_arn


def read_sevens(body: Any) -> list[bytes]:
    return list(iter(lambda: body.read(7), b""))


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(lambda body: body.iter_chunks(64), id="iter_chunks"),
        pytest.param(lambda body: body.iter_lines(keepends=True), id="iter_lines"),
        pytest.param(iter, id="iter"),
        pytest.param(read_sevens, id="read of 7 bytes"),
        pytest.param(lambda body: [body.read()], id="read"),
    ],
)
def test_a_rollout_of_streams_is_stored_byte_for_byte(
    pieces: Callable[[Any], Iterator[bytes]], client: Any, job_arn: str, database: Path
) -> None:
    conversation, exchanges = Conversation(), []
    wants_more = True
    while wants_more:
        request = conversation.request(stream=True, stream_options={"include_usage": True})
        answer = client.sample_with_response_stream(JobArn=job_arn, TrajectoryId="streams", Body=request)
        assert answer["ContentType"] == EVENT_STREAM
        exchanges.append((request, b"".join(pieces(answer["Body"]))))
        wants_more = conversation.take(message_of(*exchanges[-1], answer["ContentType"]))
    client.complete_rollout(JobArn=job_arn, TrajectoryId="streams", Status="ready")
    client.update_reward(JobArn=job_arn, TrajectoryId="streams", Rewards=[0.0, 0.25, 1.0])

    assert conversation.answer == ANSWER
    assert [answer for _, answer in exchanges] == [scripted_answer(request) for request, _ in exchanges]
    rollout = stored_rollout(database, "streams")
    rollout.assert_whole_rollout()
    assert rollout.exchanges == exchanges
    assert rollout.state == ("reward-received", "ready", [0.0, 0.25, 1.0], True)


def test_a_stream_that_is_not_read_to_its_end_leaves_the_connection_usable(
    client: Any, job_arn: str, database: Path
) -> None:
    request = Conversation().request(stream=True)
    answer = client.sample_with_response_stream(JobArn=job_arn, TrajectoryId="half-read", Body=request)
    assert answer["Body"].read(7) == scripted_answer(request)[:7]
    answer["Body"].close()
    assert len(sampled_rollout(client, job_arn, "after")) == TURNS
    stored_rollout(database, "after").assert_whole_rollout()


def test_a_failed_rollout_takes_a_reward_and_is_never_eligible(client: Any, job_arn: str, database: Path) -> None:
    sampled_rollout(client, job_arn, "failed")
    client.complete_rollout(JobArn=job_arn, TrajectoryId="failed", Status="failed")
    assert stored_rollout(database, "failed").state == ("failed", "failed", None, False)
    client.update_reward(JobArn=job_arn, TrajectoryId="failed", Rewards=[0.0])
    assert stored_rollout(database, "failed").state == ("reward-received", "failed", [0.0], False)


def test_both_sampling_operations_share_a_trajectory(client: Any, job_arn: str, database: Path) -> None:
    conversation = Conversation()
    first = conversation.request()
    answer = client.sample(JobArn=job_arn, TrajectoryId="mixed", Body=first)
    conversation.take(message_of(first, answer["Body"].read(), answer["ContentType"]))
    second = conversation.request(stream=True)
    answer = client.sample_with_response_stream(JobArn=job_arn, TrajectoryId="mixed", Body=second)
    conversation.take(message_of(second, answer["Body"].read(), answer["ContentType"]))
    third = conversation.request()
    answer = client.sample(JobArn=job_arn, TrajectoryId="mixed", Body=third)
    conversation.take(message_of(third, answer["Body"].read(), answer["ContentType"]))
    assert conversation.answer == ANSWER
    stored_rollout(database, "mixed").assert_whole_rollout()


def test_the_right_keys_do_a_whole_rollout_under_strict_auth(
    strict_server: Server, job_arn: str, database: Path
) -> None:
    with runtime_client(strict_server.url) as client:
        exchanges = sampled_rollout(client, job_arn, "signed")
        streamed = Conversation().request(stream=True)
        answer = client.sample_with_response_stream(JobArn=job_arn, TrajectoryId="signed-stream", Body=streamed)
        assert answer["Body"].read() == scripted_answer(streamed)
        client.complete_rollout(JobArn=job_arn, TrajectoryId="signed")
        client.update_reward(JobArn=job_arn, TrajectoryId="signed", Rewards=[0.5])
    rollout = stored_rollout(database, "signed")
    rollout.assert_whole_rollout()
    assert rollout.exchanges == exchanges
    assert rollout.state == ("reward-received", "ready", [0.5], True)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"aws_secret_access_key": "another-secret"}, "signature we calculated does not match"),
        ({"aws_access_key_id": "AKIDSTRANGER"}, "security token included in the request is invalid"),
        ({"aws_session_token": "a-token"}, "security token included in the request is invalid"),
        ({"region_name": "eu-central-1"}, "valid region"),
        ({"signed": False}, "Missing Authentication Token"),
    ],
)
def test_wrong_keys_are_refused_under_strict_auth(
    keys: dict[str, Any], message: str, strict_server: Server, job_arn: str, database: Path
) -> None:
    given = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, **keys}
    with runtime_client(strict_server.url) as right, runtime_client(strict_server.url, **given) as wrong:
        sampled_rollout(right, job_arn, "guarded")
        key = {"JobArn": job_arn, "TrajectoryId": "guarded"}
        for operation, members in (
            (wrong.sample, {"Body": b"{}"}),
            (wrong.sample_with_response_stream, {"Body": b"{}"}),
            (wrong.complete_rollout, {}),
            (wrong.update_reward, {"Rewards": [1.0]}),
        ):
            with pytest.raises(wrong.exceptions.AccessDeniedException) as refusal:
                operation(**key, **members)
            assert message in refusal.value.response["Error"]["Message"]
            assert SECRET not in str(refusal.value)
    rollout = stored_rollout(database, "guarded")
    assert rollout.state == ("open", None, None, False)
    assert len(rollout.turns) == TURNS


def test_jobs_of_another_account_are_refused_under_strict_auth(strict_server: Server, job_arn: str) -> None:
    foreign = job_arn.replace("123456789012", "999999999999")
    with runtime_client(strict_server.url) as client, pytest.raises(client.exceptions.AccessDeniedException):
        client.sample(JobArn=foreign, TrajectoryId="foreign", Body=Conversation().request())


def test_the_variables_that_serve_prints_are_all_that_a_client_needs(
    server: Server, job_arn: str, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in banner(server.app.settings, server.url).splitlines():
        for assignment in line.removeprefix("  export ").split() if line.startswith("  export ") else ():
            monkeypatch.setenv(*assignment.split("=", 1))
    with closing(boto3.session.Session().client("sagemakerjobruntime")) as client:
        assert client.meta.endpoint_url == server.url
        sampled_rollout(client, job_arn, "as-printed")
    with openai.OpenAI(api_key="any") as client:
        assert client.models.list().data
    stored_rollout(database, "as-printed").assert_whole_rollout()


def test_every_answer_says_which_request_it_belongs_to(client: Any, job_arn: str) -> None:
    first = client.sample(JobArn=job_arn, TrajectoryId="ids", Body=Conversation().request())["ResponseMetadata"]
    second = client.complete_rollout(JobArn=job_arn, TrajectoryId="ids")["ResponseMetadata"]
    with pytest.raises(ClientError) as refusal:
        client.complete_rollout(JobArn=job_arn, TrajectoryId="ids")
    third = refusal.value.response["ResponseMetadata"]
    assert (first["HTTPStatusCode"], second["HTTPStatusCode"], third["HTTPStatusCode"]) == (200, 200, 409)
    assert len({first["RequestId"], second["RequestId"], third["RequestId"]}) == 3
