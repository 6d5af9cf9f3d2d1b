"""What boto3 is refused: the right exception, with the reason in its message, and nothing changed by it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from emulator.trajectory import TurnStatus
from tests.clients.aws import runtime_client
from tests.clients.rollouts import Conversation, stored_rollout
from tests.model_servers import Behaviour, Exchange, Gate, model_server

BODY = Conversation().request()


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with runtime_client(server.url) as client:
        yield client


def message(refusal: pytest.ExceptionInfo[ClientError]) -> str:
    """What a person is told."""
    text: str = refusal.value.response["Error"]["Message"]
    return text


def each_operation(client: Any, key: dict[str, str]) -> list[Any]:
    """One call of each of the four, for a trajectory."""
    return [
        lambda: client.sample(**key, Body=BODY),
        lambda: client.sample_with_response_stream(**key, Body=BODY),
        lambda: client.complete_rollout(**key),
        lambda: client.update_reward(**key, Rewards=[1.0]),
    ]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({"JobArn": "arn:aws:sagemaker:us-west-2:123456789012:training-job/x"}, "'jobArn' failed to satisfy"),
        ({"JobArn": "my-job"}, "'jobArn' failed to satisfy"),
        ({"TrajectoryId": "t" * 257}, "'trajectoryId' failed to satisfy"),
    ],
)
def test_what_the_service_model_forbids_is_a_validation_exception(
    key: dict[str, str], said: str, client: Any, job_arn: str
) -> None:
    for call in each_operation(client, {"JobArn": job_arn, "TrajectoryId": "t", **key}):
        with pytest.raises(client.exceptions.ValidationException) as refusal:
            call()
        assert said in message(refusal)


def test_a_status_that_there_is_not_is_a_validation_exception(client: Any, job_arn: str) -> None:
    with pytest.raises(client.exceptions.ValidationException) as refusal:
        client.complete_rollout(JobArn=job_arn, TrajectoryId="t", Status="finished")
    assert "enum value set: [ready, failed]" in message(refusal)


def test_an_unknown_trajectory_is_not_found(client: Any, job_arn: str) -> None:
    for call in each_operation(client, {"JobArn": job_arn, "TrajectoryId": "nowhere"})[2:]:
        with pytest.raises(client.exceptions.ResourceNotFoundException) as refusal:
            call()
        assert "nowhere" in message(refusal)


def test_where_trajectories_are_dispatched_no_operation_finds_an_unknown_one(database: Path, job_arn: str) -> None:
    settings = Settings(port=0, database=str(database), trajectories="dispatched")
    with running_server(settings) as server, runtime_client(server.url) as client:
        for call in each_operation(client, {"JobArn": job_arn, "TrajectoryId": "undispatched"}):
            with pytest.raises(client.exceptions.ResourceNotFoundException):
                call()


def test_where_jobs_are_strict_no_operation_finds_an_unknown_one(database: Path, job_arn: str) -> None:
    settings = Settings(port=0, database=str(database), jobs="strict")
    with running_server(settings) as server, runtime_client(server.url) as client:
        for call in each_operation(client, {"JobArn": job_arn, "TrajectoryId": "t"}):
            with pytest.raises(client.exceptions.ValidationException) as refusal:
                call()
            assert message(refusal) == "Could not find job"


def test_a_sealed_trajectory_takes_no_turn(client: Any, job_arn: str, database: Path) -> None:
    key = {"JobArn": job_arn, "TrajectoryId": "sealed"}
    sample, stream, complete, reward = each_operation(client, key)
    sample()
    for seal in (complete, reward):
        seal()
        for call in (sample, stream):
            with pytest.raises(client.exceptions.ValidationException) as refusal:
                call()
            assert "not in valid status" in message(refusal)
    assert len(stored_rollout(database, "sealed").turns) == 1


def test_what_does_not_fit_the_trajectorys_state_is_a_conflict(client: Any, job_arn: str, database: Path) -> None:
    sample, _, complete, reward = each_operation(client, {"JobArn": job_arn, "TrajectoryId": "states"})
    sample()
    refused = []
    for call in (reward, complete, complete, reward, reward, complete):
        try:
            call()
        except client.exceptions.ConflictException as error:
            refused.append(error.response["Error"]["Message"])
    assert refused == [
        "Cannot transition trajectory states from open to reward-received",
        "Cannot transition trajectory states from ready to ready",
        "Cannot transition trajectory states from reward-received to reward-received",
        "Cannot transition trajectory states from reward-received to ready",
    ]
    assert stored_rollout(database, "states").state == ("reward-received", "ready", [1.0], True)


@pytest.mark.parametrize(
    "rewards",
    [[], [1.0] * 3, [float("nan")], [float("inf")], [1.0, float("-inf")]],
    ids=["none", "more than turns", "NaN", "Infinity", "-Infinity"],
)
def test_rewards_that_do_not_fit_are_a_validation_exception(
    rewards: list[float], client: Any, job_arn: str, database: Path
) -> None:
    key = {"JobArn": job_arn, "TrajectoryId": "two turns"}
    client.sample(**key, Body=BODY)
    client.sample(**key, Body=BODY)
    client.complete_rollout(**key)
    with pytest.raises(client.exceptions.ValidationException) as refusal:
        client.update_reward(**key, Rewards=rewards)
    assert "Rewards" in message(refusal)
    assert stored_rollout(database, "two turns").state == ("ready", "ready", None, False)
    client.update_reward(**key, Rewards=[0.0, 1.0])
    assert stored_rollout(database, "two turns").state == ("reward-received", "ready", [0.0, 1.0], True)


def test_the_same_token_with_the_same_parameters_succeeds_again(client: Any, job_arn: str, database: Path) -> None:
    key = {"JobArn": job_arn, "TrajectoryId": "again"}
    client.sample(**key, Body=BODY)
    for _ in range(2):
        client.complete_rollout(**key, ClientToken="seal")
    for _ in range(2):
        client.update_reward(**key, Rewards=[0.5], ClientToken="reward")
    client.complete_rollout(**key, ClientToken="seal")
    assert stored_rollout(database, "again").state == ("reward-received", "ready", [0.5], True)


def test_the_same_token_with_other_parameters_is_a_conflict(client: Any, job_arn: str, database: Path) -> None:
    key, other = ({"JobArn": job_arn, "TrajectoryId": name} for name in ("mine", "other"))
    for each in (key, other):
        client.sample(**each, Body=BODY)
    client.complete_rollout(**key, ClientToken="token")
    client.update_reward(**key, Rewards=[0.5], ClientToken="token")  # tokens of two operations do not meet
    for operation, members in (
        (client.complete_rollout, {**key, "Status": "failed"}),
        (client.complete_rollout, other),
        (client.update_reward, {**key, "Rewards": [0.6]}),
    ):
        with pytest.raises(client.exceptions.ConflictException) as refusal:
            operation(**members, ClientToken="token")
        assert "different parameters" in message(refusal)
    assert stored_rollout(database, "mine").state == ("reward-received", "ready", [0.5], True)
    assert stored_rollout(database, "other").state == ("open", None, None, False)


def test_a_retry_after_a_lost_answer_has_no_second_effect(server: Server, job_arn: str, database: Path) -> None:
    key = {"JobArn": job_arn, "TrajectoryId": "lost"}
    with runtime_client(server.url) as client:
        client.sample(**key, Body=BODY)
    with model_server(losing_every_other_answer(server.url)) as way, runtime_client(way.url, attempts=2) as client:
        sealed = client.complete_rollout(**key)["ResponseMetadata"]
        rewarded = client.update_reward(**key, Rewards=[1.0])["ResponseMetadata"]
    assert (sealed["RetryAttempts"], rewarded["RetryAttempts"]) == (1, 1)
    assert stored_rollout(database, "lost").state == ("reward-received", "ready", [1.0], True)


def test_a_turn_that_the_model_refuses_says_why_in_the_models_words(client: Any, job_arn: str, database: Path) -> None:
    for call in (client.sample, client.sample_with_response_stream):
        with pytest.raises(client.exceptions.ValidationException) as refusal:
            call(JobArn=job_arn, TrajectoryId="refused", Body=b'{"messages": "hello"}')
        assert message(refusal) == "`messages` must be a list of at least one message"
    assert [turn.status for turn in stored_rollout(database, "refused").turns] == [TurnStatus.FAILED] * 2


@pytest.mark.parametrize(
    ("status", "exception"),
    [
        (400, "ValidationException"),
        (404, "ValidationException"),
        (422, "ValidationException"),
        (429, "ThrottlingException"),
        (401, "InternalServiceError"),
        (503, "InternalServiceError"),
    ],
)
def test_the_model_servers_errors_become_errors_of_the_service(
    status: int, exception: str, database: Path, job_arn: str
) -> None:
    with (
        model_server(refusing(status)) as model,
        running_server(Settings(port=0, database=str(database), model=model.url)) as server,
        runtime_client(server.url) as client,
    ):
        for call in each_operation(client, {"JobArn": job_arn, "TrajectoryId": "t"})[:2]:
            with pytest.raises(getattr(client.exceptions, exception)) as refusal:
                call()
            assert message(refusal) == f"the model's own words for {status}"
            assert refusal.value.response["ResponseMetadata"]["HTTPHeaders"].get("retry-after") == (
                "7" if status == 429 else None
            )


def test_a_model_server_that_is_not_there_is_an_internal_error(database: Path, job_arn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = Settings(port=0, database=str(database), model=f"http://127.0.0.1:{port}")
    with running_server(settings) as server, runtime_client(server.url) as client:
        for call in each_operation(client, {"JobArn": job_arn, "TrajectoryId": "t"})[:2]:
            with pytest.raises(client.exceptions.InternalServiceError):
                call()


def test_more_samples_at_once_than_allowed_are_throttled(database: Path, job_arn: str) -> None:
    gate = Gate()

    async def slow(exchange: Exchange) -> None:
        await gate.passed()
        await exchange.answer(b"{}")

    with (
        model_server(slow) as model,
        running_server(Settings(port=0, database=str(database), model=model.url, max_in_flight=1)) as server,
        runtime_client(server.url) as client,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        key = {"JobArn": job_arn, "TrajectoryId": "busy"}
        first = elsewhere.submit(client.sample, **key, Body=BODY)
        try:
            model.wait_for_requests(1)
            for call in each_operation(client, key)[:2]:
                with pytest.raises(client.exceptions.ThrottlingException) as refusal:
                    call()
                assert "in flight" in message(refusal)
        finally:
            gate.open()
        assert first.result()["Body"].read() == b"{}"


def test_a_request_that_is_too_large_is_a_validation_exception(database: Path, job_arn: str) -> None:
    settings = Settings(port=0, database=str(database), max_request_bytes=1000)
    with running_server(settings) as server, runtime_client(server.url) as client:
        for call in (client.sample, client.sample_with_response_stream):
            with pytest.raises(client.exceptions.ValidationException) as refusal:
                call(JobArn=job_arn, TrajectoryId="large", Body=b"x" * 1001)
            assert "larger than 1000 bytes" in message(refusal)


def test_an_answer_that_breaks_off_is_an_error_and_not_a_short_answer(database: Path, job_arn: str) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: {}\n\n"])
        exchange.cut()

    with (
        model_server(breaks_off) as model,
        running_server(Settings(port=0, database=str(database), model=model.url)) as server,
        runtime_client(server.url) as client,
    ):
        sample, stream, *_ = each_operation(client, {"JobArn": job_arn, "TrajectoryId": "broken"})
        with pytest.raises(client.exceptions.InternalServiceError):
            sample()
        with pytest.raises(HTTPClientError):
            stream()["Body"].read()
    assert [turn.status for turn in stored_rollout(database, "broken").turns] == [TurnStatus.FAILED] * 2


def refusing(status: int) -> Behaviour:
    """A model server that answers everything with one status, and words for people."""

    async def refuse(exchange: Exchange) -> None:
        body = b'{"error": {"message": "the model\'s own words for %d"}}' % status
        await exchange.answer(body, status, more_head="retry-after: 7\r\n" if status == 429 else "")

    return refuse


def losing_every_other_answer(url: str) -> Behaviour:
    """A way to the server on which the first answer is lost, the second is not, and so on."""
    host, _, port = url.removeprefix("http://").partition(":")

    async def forward(exchange: Exchange) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        fields = "".join(f"{name}: {value}\r\n" for name, value in exchange.headers.items())
        writer.write(f"{exchange.method} {exchange.path} HTTP/1.0\r\n{fields}\r\n".encode() + exchange.body)
        answer = await reader.read()
        writer.close()
        if exchange.number % 2:
            await exchange.send(answer)
        exchange.cut()

    return forward
