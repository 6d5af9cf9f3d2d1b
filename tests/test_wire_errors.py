"""Whatever a client sends, what comes back is an answer of AWS's shape: never a traceback, never a page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.server import Server
from emulator.trajectory import TurnStatus
from tests.conftest import JOB_ARN
from tests.model_servers import Exchange, ModelServerThread, model_server
from tests.raw_client import (
    CHAT,
    COMPLETE,
    REWARD,
    SAMPLE,
    STREAM,
    RawClient,
    check_error,
    check_shape,
)
from tests.rig import emulator_before
from tests.stored import stored_turns

SAMPLING = [SAMPLE, STREAM, CHAT]


async def obey(exchange: Exchange) -> None:
    """Refuse as the request asks for, else answer."""
    wish = json.loads(exchange.body) if exchange.body.startswith(b'{"refuse"') else {}
    if "refuse" not in wish:
        await exchange.answer(b"{}")
        return
    await exchange.answer(wish["body"].encode(), wish["refuse"], more_head="retry-after: 7\r\n")


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServerThread]:
    with model_server(obey) as model:
        yield model


@pytest.fixture(scope="module")
def emulator(model: ModelServerThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = tmp_path_factory.mktemp("errors") / "trajectories.db"
    with emulator_before(model, database) as server:
        yield server


@pytest.fixture
def client(emulator: Server) -> Iterator[RawClient]:
    with RawClient(emulator.url, JOB_ARN) as client:
        yield client


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/favicon.ico",
        "/samples",
        "/sample/",
        "//sample",
        "/Sample",
        "/v1",
        "/v2/chat/completions",
        "/%ff%00",
        "/?a=b",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_an_unknown_path_is_an_unknown_operation(client: RawClient, path: str, method: str) -> None:
    check_error(client.call(path, b"{}", method=method), 404, "UnknownOperationException")


@pytest.mark.parametrize("path", [SAMPLE, STREAM, COMPLETE, REWARD])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_a_wrong_method_is_an_unknown_operation_that_names_the_right_one(
    client: RawClient, path: str, method: str
) -> None:
    assert "POST" in check_error(client.call(path, b"{}", method=method), 404, "UnknownOperationException")


def test_wrong_methods_on_openai_paths_have_both_shapes(client: RawClient) -> None:
    check_error(client.call(CHAT, method="GET"), 404, "UnknownOperationException", openai=True)
    check_error(client.call("/v1/models", method="POST"), 404, "UnknownOperationException", openai=True)


def test_a_very_long_path_gives_a_message_that_is_not_too_long(client: RawClient) -> None:
    check_error(client.call("/" + "x" * 8000), 404, "UnknownOperationException")


def test_a_head_request_gets_a_head(client: RawClient) -> None:
    reply = client.call(SAMPLE, method="HEAD")
    assert (reply.status, reply.body, reply.error) == (404, b"", "UnknownOperationException")


# Bodies


@pytest.mark.parametrize("path", [COMPLETE, REWARD])
@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b'"text"', b"5", b"\xff\xfe\x00", b"\x00", b"<html>", b"{'a': 1}", b"[" * 100_000, b"{} {}"],
    ids=lambda body: repr(body[:10]),
)
def test_a_body_that_is_no_json_object_is_a_serialization_exception(client: RawClient, path: str, body: bytes) -> None:
    check_error(client.call(path, body, {"X-Amzn-SageMaker-Job-Arn": JOB_ARN}), 400, "SerializationException")


WRONG_TEXTS: list[Any] = [5, 1.5, True, [], ["t"], {"a": "b"}]
WRONG_REWARDS: list[Any] = ["x", 1, {"a": 1}, True, [None], [True], ["x"], [[1.0]], [{}], ["nan"]]


@pytest.mark.parametrize("member", ["JobArn", "TrajectoryId", "Status", "ClientToken"])
@pytest.mark.parametrize("value", WRONG_TEXTS, ids=repr)
def test_a_member_of_the_wrong_type_is_a_serialization_exception_that_names_it(
    client: RawClient, member: str, value: Any
) -> None:
    document = {"JobArn": JOB_ARN, "TrajectoryId": "t", member: value}
    message = check_error(client.call(COMPLETE, json.dumps(document).encode()), 400, "SerializationException")
    assert member in message


@pytest.mark.parametrize("value", WRONG_REWARDS, ids=repr)
def test_rewards_that_are_no_list_of_numbers_are_a_serialization_exception(client: RawClient, value: Any) -> None:
    document = {"JobArn": JOB_ARN, "TrajectoryId": "t", "Rewards": value}
    message = check_error(client.call(REWARD, json.dumps(document).encode()), 400, "SerializationException")
    assert "Rewards" in message


@pytest.mark.parametrize("member", ["TrajectoryId", "ClientToken"])
def test_half_a_surrogate_pair_is_a_serialization_exception(client: RawClient, member: str) -> None:
    """JSON can say it, but it is no text: neither UTF-8 nor the database can hold it."""
    document = {"JobArn": JOB_ARN, "TrajectoryId": "t", member: "\ud83e"}
    client.sample("t", b"{}")
    check_error(client.call(COMPLETE, json.dumps(document).encode()), 400, "SerializationException")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"TrajectoryId": ""}, "trajectoryId"),
        ({"TrajectoryId": "x" * 257}, "trajectoryId"),
        ({"TrajectoryId": None}, "trajectoryId"),
        ({"TrajectoryId": "t\0"}, "trajectoryId"),
        ({"ClientToken": "\0"}, "clientToken"),
        ({"JobArn": None}, "jobArn"),
        ({"JobArn": ""}, "jobArn"),
        ({"JobArn": "arn:aws:sagemaker:us-west-2:12345:job/AgentRFT/name"}, "jobArn"),
        ({"JobArn": JOB_ARN + "\n"}, "jobArn"),
        ({"JobArn": JOB_ARN + "x" * 256}, "jobArn"),
        ({"Status": "done"}, "status"),
        ({"Status": "open"}, "status"),
        ({"Status": "reward-received"}, "status"),
        ({"Status": "READY"}, "status"),
        ({"Status": ""}, "status"),
    ],
    ids=repr,
)
def test_a_broken_constraint_is_a_validation_exception_that_names_the_member(
    client: RawClient, change: dict[str, Any], place: str
) -> None:
    document = {"JobArn": JOB_ARN, "TrajectoryId": "t", **change}
    assert place in check_error(client.call(COMPLETE, json.dumps(document).encode()), 400, "ValidationException")


@pytest.mark.parametrize(
    "rewards", [b"[NaN]", b"[Infinity]", b"[-Infinity]", b'["NaN"]', b"[1e999]", b"[]", b"[1,2,3]", b"null"]
)
def test_rewards_that_do_not_fit_are_a_validation_exception(client: RawClient, rewards: bytes) -> None:
    name = f"rewards-{rewards.decode()}"
    assert client.sample(name, b"{}").status == 200
    assert client.complete(name).status == 200
    body = b'{"TrajectoryId": %b, "Rewards": %b}' % (json.dumps(name).encode(), rewards)
    check_error(client.call(REWARD, body, {"X-Amzn-SageMaker-Job-Arn": JOB_ARN}), 400, "ValidationException")
    assert client.reward(name, [1.0]).status == 200


def test_a_job_that_the_header_and_the_body_do_not_agree_on_is_a_validation_exception(client: RawClient) -> None:
    other = JOB_ARN + "-2"
    body = json.dumps({"JobArn": other, "TrajectoryId": "t"}).encode()
    check_error(client.call(COMPLETE, body, {"X-Amzn-SageMaker-Job-Arn": JOB_ARN}), 400, "ValidationException")


@pytest.mark.parametrize("path", SAMPLING)
def test_a_sample_needs_a_job_a_trajectory_and_a_body(client: RawClient, path: str) -> None:
    openai = path == CHAT
    whole = client.sample_headers("t")
    for missing, place in (("X-Amzn-SageMaker-Job-Arn", "jobArn"), ("X-Amzn-SageMaker-Trajectory-Id", "trajectoryId")):
        headers = {name: value for name, value in whole.items() if name != missing}
        assert place in check_error(client.call(path, b"{}", headers), 400, "ValidationException", openai)
    assert "body" in check_error(client.call(path, b"", whole), 400, "ValidationException", openai)
    check_error(client.call(path, b"{}", {}), 400, "ValidationException", openai)


def test_trajectories_nobody_knows_are_not_found(client: RawClient) -> None:
    check_error(client.complete("nobody"), 404, "ResourceNotFoundException")
    check_error(client.reward("nobody", [1.0]), 404, "ResourceNotFoundException")


@pytest.mark.parametrize("path", SAMPLING)
def test_a_sealed_trajectory_takes_no_sample(client: RawClient, path: str) -> None:
    for status in ("ready", "failed"):
        name = f"sealed-{status}-{path}"
        assert client.sample(name, b"{}", path).status == 200
        assert client.complete(name, status).status == 200
        message = check_error(client.sample(name, b"{}", path), 400, "ValidationException", path == CHAT)
        assert "not in valid status" in message
        assert client.reward(name, [0.0]).status == 200
        message = check_error(client.sample(name, b"{}", path), 400, "ValidationException", path == CHAT)
        assert "not in valid status" in message


def test_another_web_site_is_refused(client: RawClient) -> None:
    for path in (COMPLETE, "/v1/models"):
        reply = client.call(
            path, b"{}", {"Origin": "https://example.com"}, method="POST" if path == COMPLETE else "GET"
        )
        check_error(reply, 403, "AccessDeniedException", openai=path != COMPLETE)


# Anything at all

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(
    st.sampled_from(["JobArn", "TrajectoryId", "Status", "ClientToken", "Rewards", "Other"]),
    anything | st.just(JOB_ARN) | st.sampled_from(["ready", "failed", "fuzz"]) | st.just([1.0]),
)


def test_no_request_whatsoever_is_answered_with_a_traceback_or_a_page(
    client: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.sample("fuzz", b"{}").status == 200

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from([COMPLETE, REWARD]), documents.map(json.dumps).map(str.encode) | st.binary(), st.booleans())
    def check(path: str, body: bytes, with_header: bool) -> None:
        reply = client.call(path, body, {"X-Amzn-SageMaker-Job-Arn": JOB_ARN} if with_header else {})
        if reply.status != 200:
            assert reply.status in (400, 404, 409)
            check_shape(reply)

    check()

    printable = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=300)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(SAMPLING), printable | st.just(JOB_ARN), printable, st.binary(max_size=100))
    def check_samples(path: str, job_arn: str, trajectory_id: str, body: bytes) -> None:
        headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": "z" + trajectory_id}
        reply = client.call(path, body, headers)
        if reply.status != 200:
            assert reply.status == 400
            check_shape(reply, path == CHAT)

    check_samples()
    assert "Traceback" not in caplog.text


# Models that refuse

REFUSALS = [
    (400, 400, "ValidationException"),
    (401, 500, "InternalServiceError"),
    (404, 400, "ValidationException"),
    (422, 400, "ValidationException"),
    (429, 429, "ThrottlingException"),
    (500, 500, "InternalServiceError"),
    (503, 500, "InternalServiceError"),
    (302, 500, "InternalServiceError"),
]


@pytest.mark.parametrize(("model_status", "status", "error"), REFUSALS)
@pytest.mark.parametrize("path", [SAMPLE, STREAM])
def test_what_the_model_refuses_is_an_error_with_its_own_words(
    emulator: Server, client: RawClient, path: str, model_status: int, status: int, error: str
) -> None:
    name = f"refused-{path}-{model_status}"
    words = json.dumps({"error": {"message": "my own words"}})
    reply = client.sample(name, json.dumps({"refuse": model_status, "body": words}).encode(), path)
    assert check_error(reply, status, error) == "my own words"
    assert reply.headers.get("retry-after") == ("7" if model_status == 429 else None)
    (turn,) = stored_turns(Path(emulator.app.settings.database), name)
    assert (turn.status, turn.http_status, turn.response) == (TurnStatus.FAILED, model_status, words.encode())
    assert client.complete(name).status == 200
    assert client.reward(name, [0.5]).status == 200


@pytest.mark.parametrize("model_status", [status for status, *_ in REFUSALS])
def test_what_the_model_refuses_passes_through_on_openai_paths(
    emulator: Server, client: RawClient, model_status: int
) -> None:
    name = f"passed-{model_status}"
    words = '{"error": "exactly   these bytes"}'
    reply = client.sample(name, json.dumps({"refuse": model_status, "body": words}).encode(), CHAT)
    assert (reply.status, reply.body, reply.error) == (model_status, words.encode(), None)
    assert reply.headers["retry-after"] == "7"
    (turn,) = stored_turns(Path(emulator.app.settings.database), name)
    assert (turn.status, turn.response) == (TurnStatus.FAILED, words.encode())


@pytest.mark.parametrize("body", ["<html><title>502 Bad Gateway</title></html>", "", "x" * 100_000, '{"a": 1}'])
def test_a_refusal_without_words_for_people_is_still_an_error_with_a_message(client: RawClient, body: str) -> None:
    reply = client.sample("wordless", json.dumps({"refuse": 502, "body": body}).encode())
    message = check_error(reply, 500, "InternalServiceError")
    assert "<" not in message
