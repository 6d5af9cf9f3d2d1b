"""botocore signs, `authenticate` verifies."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emulator.protocol.auth import Caller, KeyPair, parse_key_pair
from tests.protocol.signing import (
    AKID,
    AUTHORIZATION,
    JOB_ARN,
    MISMATCH,
    NOT_KNOWN,
    PERMANENT,
    REGION,
    SECOND,
    SECRET,
    SESSION_TOKEN,
    TEMPORARY,
    Request,
    bearer,
    caller,
    received,
    refusal,
    signed,
    token_url,
)


@pytest.fixture(scope="module", params=["permanent", "temporary"])
def sent_by_botocore(request: pytest.FixtureRequest) -> tuple[dict[str, Request], Mapping[str, KeyPair]]:
    """What a client sends for each operation, and the key pairs that it signs with."""
    key_pairs = TEMPORARY if request.param == "temporary" else PERMANENT
    client = botocore.session.Session().create_client(
        "sagemakerjobruntime",
        region_name=REGION,
        endpoint_url="http://127.0.0.1:8080",
        aws_access_key_id=AKID,
        aws_secret_access_key=SECRET,
        aws_session_token=key_pairs[AKID].session_token,
    )
    sent: dict[str, Request] = {}

    class NoBody:
        def stream(self, **_: object) -> list[bytes]:
            return [b"{}"]

    def catch(request: Any, event_name: str, **_: object) -> Any:
        sent[event_name.rpartition(".")[2]] = received(request)
        return AWSResponse(request.url, 200, {}, NoBody())

    client.meta.events.register("before-send", catch)
    trajectory: dict[str, Any] = {"JobArn": JOB_ARN, "TrajectoryId": "a  trajectory: é"}
    client.sample(**trajectory, Body=b"\x00not even JSON")
    client.sample_with_response_stream(**trajectory, Body=b"")
    client.complete_rollout(**trajectory, Status="ready")
    client.update_reward(**trajectory, Rewards=[1.0])
    return sent, key_pairs


@pytest.mark.parametrize("operation", ["Sample", "SampleWithResponseStream", "CompleteRollout", "UpdateReward"])
def test_each_operation_of_a_real_client_is_recognised(
    sent_by_botocore: tuple[dict[str, Request], Mapping[str, KeyPair]], operation: str
) -> None:
    sent, key_pairs = sent_by_botocore
    assert caller(sent[operation], key_pairs) == Caller(AKID, "sigv4")
    assert MISMATCH in refusal(sent[operation], {AKID: replace(key_pairs[AKID], secret_access_key="other")})


REWRITES = [
    (b"host", b"8080", b"8081"),
    (b"content-type", b"json", b"xml"),
    (b"x-amzn-sagemaker-job-arn", b"job-1", b"job-2"),
    (b"x-amz-security-token", b"F", b"f"),
    (b"x-amz-date", b"T", b" "),
    (AUTHORIZATION, b"AWS4-HMAC-SHA256", b"Basic"),
    (AUTHORIZATION, b"HMAC-SHA256", b"ECDSA-P256-SHA256"),
    (AUTHORIZATION, b"AKIDLOCAL", b"AKIDOTHER"),
    (AUTHORIZATION, b"LOCAL/2", b"LOCAL/3"),
    (AUTHORIZATION, b"us-west-2", b"us-east-1"),
    (AUTHORIZATION, b"/sagemaker/", b"/bedrock/"),
    (AUTHORIZATION, b"aws4_request", b"aws5_request"),
    (AUTHORIZATION, b"/aws4_request", b""),
    (AUTHORIZATION, b"SignedHeaders=", b"Headers="),
    (AUTHORIZATION, b"host;", b""),
    (AUTHORIZATION, b"content-type;", b""),
    (AUTHORIZATION, b"x-amz-date;", b""),
    (AUTHORIZATION, b"x-amz-security-token;", b""),
    (AUTHORIZATION, b";x-amzn-sagemaker-job-arn", b""),
    (AUTHORIZATION, b"host;", b"host;not-sent;"),
    (AUTHORIZATION, b"Signature=", b"Signature=0"),
    (AUTHORIZATION, b"Signature=", b"Signature=, Other="),
    (AUTHORIZATION, b"Signature=", b"Signature=0, Signature="),
]
ALTERATIONS: dict[str, Callable[[Request], Request]] = {
    "method": lambda r: replace(r, method="PUT"),
    "path": lambda r: replace(r, path=b"/sampl"),
    "a letter of the path encoded": lambda r: replace(r, path=b"/%73ample"),
    "query": lambda r: replace(r, query=b"a=2"),
    "no query": lambda r: replace(r, query=b""),
    "byte of the body": lambda r: replace(r, body=b"[" + r.body[1:]),
    "longer body": lambda r: replace(r, body=r.body + b" "),
    "a second earlier": lambda r: r.with_header(b"x-amz-date", f"{r.signed_at - SECOND:%Y%m%dT%H%M%SZ}".encode()),
    "authorization twice": lambda r: r.with_header(AUTHORIZATION, *[r.header(AUTHORIZATION)] * 2),
    "a signed header twice": lambda r: replace(r, headers=(*r.headers, (b"x-amzn-sagemaker-job-arn", b"x"))),
    "AWS's header not signed": lambda r: r.with_header(b"x-amz-target", b"SageMaker.CreateJob"),
    "the service's header not signed": lambda r: r.with_header(b"x-amzn-sagemaker-trajectory-id", b"t"),
    **{f"no {header.decode()}": partial(Request.with_header, name=header) for header, *_ in REWRITES},
    **{f"{h!r} {old!r} {new!r}": partial(Request.rewritten, name=h, old=old, new=new) for h, old, new in REWRITES},
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_signed_request_with_one_thing_altered_is_refused(alteration: str) -> None:
    request = signed(session_token=SESSION_TOKEN)
    assert caller(request, TEMPORARY) == Caller(AKID, "sigv4")
    refusal(ALTERATIONS[alteration](request), TEMPORARY, region=REGION)
    refusal(ALTERATIONS[alteration](request), TEMPORARY, region=None)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"service": "bedrock"}, "Credential should be scoped to correct service: 'sagemaker'."),
        ({"region": "eu-west-1"}, "Credential should be scoped to a valid region, not 'eu-west-1'."),
        ({"secret": "other"}, MISMATCH),
        ({"session_token": SESSION_TOKEN}, NOT_KNOWN),
    ],
)
def test_a_request_that_is_well_signed_with_the_wrong_thing_is_refused(wrong: dict[str, Any], text: str) -> None:
    assert text in refusal(signed(**wrong))


@pytest.mark.parametrize(
    ("header", "old", "new", "text"),
    [
        (b"x-amz-date", b"T", b" ", "Date must be in ISO-8601 'basic format'."),
        (AUTHORIZATION, b"SHA256", b"SHA1", "Unsupported AWS 'algorithm'"),
        (AUTHORIZATION, b"Signature=", b"", "Authorization header requires 'Signature' parameter."),
        (AUTHORIZATION, b"host;", b"", "'Host' must be a 'SignedHeader' in the AWS Authorization."),
        (AUTHORIZATION, b"x-amz-date;", b"", "There were headers present in the request which were not signed"),
        (AUTHORIZATION, b"/aws4_request", b"", "Credential must have exactly 5 slash-delimited elements"),
        (AUTHORIZATION, b"aws4_request", b"aws5_request", "scoped with a valid terminator: 'aws4_request'."),
        (AUTHORIZATION, b"LOCAL/2", b"LOCAL/3", "Date in Credential scope does not match YYYYMMDD"),
    ],
)
def test_a_refusal_names_what_is_wrong(header: bytes, old: bytes, new: bytes, text: str) -> None:
    assert text in refusal(signed().rewritten(header, old, new))


def test_a_key_with_a_session_token_demands_it() -> None:
    assert refusal(signed(), TEMPORARY) == NOT_KNOWN
    assert refusal(signed(session_token="other"), TEMPORARY) == NOT_KNOWN


def test_an_unknown_access_key_is_refused() -> None:
    assert refusal(signed(), {}) == NOT_KNOWN


def test_without_a_configured_region_any_region_will_do() -> None:
    assert caller(signed(region="eu-west-1"), region=None) == Caller(AKID, "sigv4")


@pytest.mark.parametrize("sign", [1, -1])
def test_the_clocks_may_be_fifteen_minutes_apart_and_no_more(sign: int) -> None:
    request = signed()
    edge = request.signed_at + sign * timedelta(minutes=15)
    assert caller(request, now=edge) == Caller(AKID, "sigv4")
    text = refusal(request, now=edge + sign * timedelta(microseconds=1))
    assert text.startswith("Signature expired: " if sign > 0 else "Signature not yet current: ")


def test_an_expired_signature_is_told_in_the_words_of_aws() -> None:
    request = signed().with_header(b"x-amz-date", b"20260301T000000Z")
    text = refusal(request, now=datetime(2026, 3, 1, 1, tzinfo=UTC))
    assert text == (
        "Signature expired: 20260301T000000Z is now earlier than 20260301T004500Z (20260301T010000Z - 15 min.)"
    )


def test_the_time_may_be_in_the_date_header_instead() -> None:
    request = signed(headers={"Date": "to be replaced by botocore"})
    assert b" -0000" in request.header(b"date")
    assert caller(request) == Caller(AKID, "sigv4")
    refusal(request.with_header(b"date", b"Mon, 01 Jan 2020 00:00:00 GMT"))
    refusal(request.with_header(b"date", b"Fri, 31 Dec 9999 23:59:59 -2359"))


def test_a_hash_of_the_body_must_be_the_hash_of_the_body() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    announced = {"X-Amz-Content-SHA256": empty}
    assert caller(signed(body=b"", headers=announced)) == Caller(AKID, "sigv4")
    assert "x-amz-content-sha256" in refusal(signed(body=b"x", headers=announced))


@pytest.mark.parametrize("hash_", ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])
def test_an_unsigned_payload_is_refused(hash_: str) -> None:
    assert "x-amz-content-sha256" in refusal(signed(headers={"X-Amz-Content-SHA256": hash_}))


def test_a_repeated_header_counts_with_all_its_values_in_their_order() -> None:
    request = signed(repeated=(("X-Thing", " b  c "), ("X-Thing", "a")))
    assert caller(request) == Caller(AKID, "sigv4")
    refusal(request.with_header(b"x-thing", b"a", b"b c"))
    refusal(request.with_header(b"x-thing", b"b c"))


VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x2FFF, exclude_categories=("C", "Z"))
HEADER_VALUES = st.text(st.one_of(VISIBLE, st.sampled_from(" \t")), max_size=40)
SEGMENTS = st.one_of(st.sampled_from(["", ".", "..", "a:b@c", "%2F", "~+*'"]), st.text(max_size=8).map(quote))
NAMES = st.text(max_size=8).map(lambda text: quote(text, safe="~"))


@settings(deadline=None, max_examples=60)
@given(
    body=st.binary(max_size=200),
    value=HEADER_VALUES,
    segments=st.lists(SEGMENTS, max_size=5),
    query=st.lists(st.tuples(NAMES, NAMES), max_size=4),
    data=st.data(),
)
def test_whatever_botocore_signs_is_recognised_and_no_byte_of_its_body_may_change(
    body: bytes, value: str, segments: list[str], query: list[tuple[str, str]], data: st.DataObject
) -> None:
    path = "/" + "/".join(segments) + "?" + "&".join(f"{name}={text}" for name, text in query)
    request = signed(path=path, headers={"X-Thing": value}, body=body)
    assert caller(request) == Caller(AKID, "sigv4")

    at = data.draw(st.integers(0, len(body)))
    changed = body[:at] + data.draw(st.binary(min_size=1, max_size=1)) + body[at + 1 :]
    assume(changed != body)
    assert MISMATCH in refusal(replace(request, body=changed))


@pytest.mark.parametrize("value", [None, b"", b"Basic dXNlcjpwYXNz", b"Token x", b"AWS AKID:sig", b"\xff"])
def test_without_a_credential_the_authentication_token_is_missing(value: bytes | None) -> None:
    request = Request(()) if value is None else Request(((AUTHORIZATION, value),))
    assert refusal(request) == "Missing Authentication Token"


def meaning(text: bytes) -> bytes:
    """What is left when the spellings that say the same are one: blanks, commas, percent escapes."""
    return re.sub(rb"[\s,]+", b"", unquote_to_bytes(text))


GARBAGE = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda data: b"AWS4-HMAC-SHA256 " + data),
    st.binary(max_size=60).map(lambda data: b"Bearer " + data),
    st.binary(max_size=60).map(lambda data: b"Bearer sagemaker-api-key-" + base64.b64encode(data)),
)


@settings(deadline=None, max_examples=150)
@given(authorization=GARBAGE, date=st.one_of(st.binary(max_size=30), st.from_regex(rb"[0-9TZ+:-]{1,24}")))
def test_garbage_is_refused_and_nothing_worse(authorization: bytes, date: bytes) -> None:
    for name in (b"x-amz-date", b"date"):
        refusal(Request(((b"host", b"h"), (AUTHORIZATION, authorization), (name, date))))


@settings(deadline=None, max_examples=150)
@given(data=st.data(), replacement=st.one_of(st.binary(max_size=3), st.sampled_from([b",", b"=", b";", b"/", b"%"])))
def test_damaged_credentials_are_refused_and_nothing_worse(data: st.DataObject, replacement: bytes) -> None:
    request, url = signed(), token_url()
    authorization = request.header(AUTHORIZATION)
    for whole, damage in (
        (authorization, lambda part: request.with_header(AUTHORIZATION, part)),
        (request.header(b"x-amz-date"), lambda part: request.with_header(b"x-amz-date", part)),
        (url, bearer),
    ):
        start = data.draw(st.integers(0, len(whole) - 1))
        end = data.draw(st.integers(start + 1, len(whole)))
        damaged = whole[:start] + replacement + whole[end:]
        assume(meaning(damaged) != meaning(whole))
        refusal(damage(damaged))


def test_a_key_pair_is_read_from_its_setting() -> None:
    assert parse_key_pair(f"{AKID}:{SECRET}") == KeyPair(AKID, SECRET)
    assert parse_key_pair(f"{AKID}:{SECRET}:{SESSION_TOKEN}") == KeyPair(AKID, SECRET, SESSION_TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SECRET,
        f":{SECRET}",
        f"{AKID}:",
        f"{AKID}:{SECRET}:",
        f"{AKID}:{SECRET} ",
        f"{AKID}:{SECRET}é",
        f"{SECRET}:x",
    ],
)
def test_a_key_pair_in_another_form_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a key pair is written ACCESS_KEY_ID:SECRET_ACCESS_KEY") as refused:
        parse_key_pair(text)
    assert SECRET not in repr(refused.value)


def test_a_key_pair_shows_no_secret() -> None:
    assert repr(TEMPORARY[AKID]) == f"KeyPair(access_key_id='{AKID}')"
