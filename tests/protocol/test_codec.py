"""Headers and bodies become keyword arguments, or errors that name what is wrong."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.protocol.codec import decode
from emulator.protocol.errors import AWSError, SerializationException, ValidationException
from emulator.protocol.service_model import load_service_model

OPERATIONS = load_service_model().operations
COMPLETE, REWARD, SAMPLE = (OPERATIONS[name] for name in ("CompleteRollout", "UpdateReward", "Sample"))
ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/my-job"
JOB = {b"x-amzn-sagemaker-job-arn": ARN.encode()}
BOTH = {**JOB, b"x-amzn-sagemaker-trajectory-id": b"t"}


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def test_members_come_from_header_and_body() -> None:
    assert decode(COMPLETE, JOB, body(TrajectoryId="t", Status="failed", ClientToken="c")) == {
        "job_arn": ARN,
        "trajectory_id": "t",
        "status": "failed",
        "client_token": "c",
    }


def test_the_job_arn_may_stand_in_the_body_as_the_sdk_sends_it() -> None:
    assert decode(COMPLETE, {}, body(JobArn=ARN, TrajectoryId="t"))["job_arn"] == ARN


def test_the_job_arn_may_stand_in_both_if_they_agree() -> None:
    assert decode(COMPLETE, JOB, body(JobArn=ARN, TrajectoryId="t"))["job_arn"] == ARN
    with pytest.raises(ValidationException, match=r"JobArn in the header .* not the same"):
        decode(COMPLETE, JOB, body(JobArn=ARN + "2", TrajectoryId="t"))


def test_optional_members_that_are_absent_or_null_are_none() -> None:
    for document in (body(TrajectoryId="t"), body(TrajectoryId="t", Status=None, ClientToken=None)):
        arguments = decode(COMPLETE, JOB, document)
        assert (arguments["status"], arguments["client_token"]) == (None, None)


def test_members_that_the_model_does_not_know_are_ignored() -> None:
    assert "colour" not in decode(COMPLETE, JOB, body(TrajectoryId="t", Colour="red"))


def test_a_samples_body_is_not_looked_at() -> None:
    raw = b'\xff\x00 {"not": json'
    assert decode(SAMPLE, BOTH, raw) == {"job_arn": ARN, "trajectory_id": "t", "body": raw}


def test_a_header_is_utf_8_or_else_latin_1() -> None:
    for raw in ("é".encode(), "é".encode("latin-1")):
        assert decode(SAMPLE, {**JOB, b"x-amzn-sagemaker-trajectory-id": raw}, b"{}")["trajectory_id"] == "é"


def test_rewards_are_doubles_exactly() -> None:
    sent = [0, 1, -2.5, 0.1, 1e-320, 1.7976931348623157e308]
    rewards = decode(REWARD, JOB, body(TrajectoryId="t", Rewards=sent))["rewards"]
    assert rewards == sent
    assert all(type(reward) is float for reward in rewards)


def test_rewards_that_are_no_numbers_arrive_as_rest_json_or_python_write_them() -> None:
    for document in (b'"NaN", "Infinity", "-Infinity"', b"NaN, Infinity, -Infinity"):
        rewards = decode(REWARD, JOB, b'{"TrajectoryId": "t", "Rewards": [' + document + b"]}")["rewards"]
        assert math.isnan(rewards[0])
        assert rewards[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize("raw", [b"{", b"nonsense", b'"text"', b"[]", b"1", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(SerializationException):
        decode(COMPLETE, JOB, raw)


@pytest.mark.parametrize(
    "members",
    [
        {"TrajectoryId": 1},
        {"TrajectoryId": ["t"]},
        {"TrajectoryId": "t", "Rewards": 1},
        {"TrajectoryId": "t", "Rewards": "1"},
        {"TrajectoryId": "t", "Rewards": {"0": 1}},
        {"TrajectoryId": "t", "Rewards": ["1"]},
        {"TrajectoryId": "t", "Rewards": [None]},
        {"TrajectoryId": "t", "Rewards": [True]},
        {"TrajectoryId": "t", "Rewards": [[1]]},
        {"TrajectoryId": "t", "Rewards": [1], "ClientToken": 1},
    ],
    ids=str,
)
def test_members_of_the_wrong_type_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(SerializationException):
        decode(REWARD, JOB, body(**members))


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(SerializationException, match="half of a surrogate pair"):
        decode(COMPLETE, JOB, rb'{"TrajectoryId": "\ud800"}')
    assert decode(COMPLETE, JOB, rb'{"TrajectoryId": "\ud83d\ude00"}')["trajectory_id"] == "😀"


def test_a_number_that_fits_no_double_is_refused() -> None:
    with pytest.raises(ValidationException, match="does not fit a double"):
        decode(REWARD, JOB, b'{"TrajectoryId": "t", "Rewards": [1' + b"0" * 400 + b"]}")


@pytest.mark.parametrize(
    ("members", "constraint"),
    [
        ({}, "at 'trajectoryId' failed to satisfy constraint: Member must not be null"),
        ({"TrajectoryId": ""}, "Member must have length greater than or equal to 1"),
        ({"TrajectoryId": "x" * 257}, "Member must have length less than or equal to 256"),
        ({"TrajectoryId": "t", "Status": "done"}, r"Member must satisfy enum value set: \[ready, failed\]"),
        ({"TrajectoryId": "t", "JobArn": "arn:aws:s3:::bucket"}, "Member must satisfy regular expression pattern"),
        ({"TrajectoryId": "t", "JobArn": ARN + "\n"}, "Member must satisfy regular expression pattern"),
        ({"TrajectoryId": "t", "JobArn": ARN + "x" * 256}, "Member must have length less than or equal to 256"),
    ],
)
def test_constraints_of_the_model_are_enforced(members: dict[str, Any], constraint: str) -> None:
    headers = {} if "JobArn" in members else JOB
    with pytest.raises(ValidationException, match=constraint):
        decode(COMPLETE, headers, body(**members))


def test_all_broken_constraints_are_named_at_once() -> None:
    with pytest.raises(ValidationException, match=r"^3 validation errors detected: .*jobArn.*trajectoryId.*body"):
        decode(SAMPLE, {}, b"")


def test_256_characters_may_take_more_bytes() -> None:
    assert decode(COMPLETE, JOB, body(TrajectoryId="é" * 256))["trajectory_id"] == "é" * 256


@given(st.binary(max_size=200), st.binary(max_size=80), st.sampled_from(list(OPERATIONS)))
def test_whatever_arrives_is_decoded_or_refused(raw: bytes, header: bytes, name: str) -> None:
    with contextlib.suppress(AWSError):
        decode(OPERATIONS[name], {b"x-amzn-sagemaker-job-arn": header}, raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["JobArn", "TrajectoryId", "Status", "Rewards", "ClientToken"]), json_values))
def test_whatever_json_arrives_is_decoded_or_refused(document: dict[str, Any]) -> None:
    try:
        arguments = decode(REWARD, JOB, json.dumps(document).encode())
    except AWSError:
        return
    assert all(type(reward) is float for reward in arguments["rewards"])
