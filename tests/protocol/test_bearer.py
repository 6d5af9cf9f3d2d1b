"""Bearer tokens, as the SageMaker SDK makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from emulator.protocol.auth import Caller
from tests.protocol.signing import (
    AKID,
    AUTHORIZATION,
    BAD_TOKEN,
    SESSION_TOKEN,
    TEMPORARY,
    Request,
    bearer,
    caller,
    refusal,
    token_url,
    url_signed_at,
)


def test_a_bearer_token_is_recognised() -> None:
    assert caller(bearer(token_url())) == Caller(AKID, "bearer")
    assert caller(bearer(token_url(session_token=SESSION_TOKEN)), TEMPORARY) == Caller(AKID, "bearer")
    assert caller(bearer(token_url(region="eu-west-1")), region=None) == Caller(AKID, "bearer")


def test_the_name_of_the_bearer_scheme_has_no_case() -> None:
    assert caller(bearer(token_url()).rewritten(AUTHORIZATION, b"Bearer", b"bearer")) == Caller(AKID, "bearer")


def test_a_bearer_token_covers_any_request() -> None:
    request = replace(bearer(token_url()), method="GET", path=b"/v1/models", query=b"x=y", body=b"")
    assert caller(request) == Caller(AKID, "bearer")


@pytest.mark.parametrize("expires", [1, 60, 43_200])
def test_a_bearer_token_lives_until_it_expires(expires: int) -> None:
    url = token_url(expires=expires)
    edge = url_signed_at(url) + timedelta(seconds=expires)
    assert caller(bearer(url), now=edge) == Caller(AKID, "bearer")
    assert refusal(bearer(url), now=edge + timedelta(microseconds=1)) == BAD_TOKEN


def test_a_bearer_token_may_be_fifteen_minutes_ahead_and_no_more() -> None:
    url = token_url()
    edge = url_signed_at(url) - timedelta(minutes=15)
    assert caller(bearer(url), now=edge) == Caller(AKID, "bearer")
    assert refusal(bearer(url), now=edge - timedelta(microseconds=1)) == BAD_TOKEN


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires": 43_201},
        {"expires": 0},
        {"expires": -1},
        {"region": "eu-west-1"},
        {"service": "bedrock"},
        {"secret": "other"},
        {"session_token": SESSION_TOKEN},
        {"host": "bedrock.amazonaws.com"},
        {"method": "GET"},
        {"action": "CallWithoutBearerToken"},
    ],
    ids=str,
)
def test_a_bearer_token_that_is_well_signed_for_the_wrong_thing_is_refused(wrong: dict[str, Any]) -> None:
    assert refusal(bearer(token_url(**wrong))) == BAD_TOKEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Action=CallWithBearerToken", b"Action=Call"),
        (b"Action=CallWithBearerToken&", b""),
        (b"AWS4-HMAC-SHA256", b"AWS4-HMAC-SHA1"),
        (b"AKIDLOCAL%2F", b"AKIDOTHER%2F"),
        (b"AKIDLOCAL%2F2", b"AKIDLOCAL%2F3"),
        (b"aws4_request", b"aws5_request"),
        (b"X-Amz-Date=2", b"X-Amz-Date=1"),
        (b"X-Amz-Date=2", b"Date=2"),
        (b"Expires=43200", b"Expires=43199"),
        (b"Expires=43200", b"Expires=4e4"),
        (b"Expires=43200", "Expires=²".encode("latin-1")),
        (b"Expires=43200", b"Expires=" + b"9" * 5000),
        (b"SignedHeaders=host", b"SignedHeaders=date"),
        (b"X-Amz-Signature=", b"X-Amz-Signature=0"),
        (b"X-Amz-Signature=", b"Signature="),
        (b"Version=1", b"Version=2"),
        (b"&Version=1", b""),
        (b"&Version=1", b"&Version=1&Version=1"),
        (b"&Version=1", b"&Version=1&More=1"),
        (b"X-Amz-Expires=43200", b"X-Amz-Expires=43200&X-Amz-Expires=43200"),
        (b"sagemaker.amazonaws.com/", b"https://sagemaker.amazonaws.com/"),
        (b"sagemaker.amazonaws.com/?", b""),
        (b"sagemaker.amazonaws.com/", b"sagemaker.amazonaws.com.example.org/"),
    ],
)
def test_a_bearer_token_with_one_thing_altered_is_refused(old: bytes, new: bytes) -> None:
    url = token_url()
    assert old in url
    assert refusal(bearer(url.replace(old, new, 1))) == BAD_TOKEN
    assert refusal(bearer(url.replace(old, new, 1)), region=None) == BAD_TOKEN


def test_a_bearer_token_of_a_key_with_a_session_token_must_hold_it() -> None:
    assert refusal(bearer(token_url()), TEMPORARY) == BAD_TOKEN
    assert refusal(bearer(token_url(session_token="other")), TEMPORARY) == BAD_TOKEN


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: b"",
        lambda token: token[len("sagemaker-api-key-") :],
        lambda token: b"bedrock" + token[len("sagemaker") :],
        lambda token: token[:-1],
        lambda token: token + b"!",
        lambda token: token + b" more",
        lambda token: token + "é".encode(),
        lambda token: b"EMPTY",
    ],
)
def test_what_is_no_bearer_token_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    token = bearer(token_url()).header(AUTHORIZATION).removeprefix(b"Bearer ")
    request = Request(((AUTHORIZATION, b"Bearer " + spoil(token)),))
    assert refusal(request) == BAD_TOKEN
