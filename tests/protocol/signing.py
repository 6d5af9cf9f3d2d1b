"""Requests as real clients sign them."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from emulator.protocol.auth import Caller, KeyPair, authenticate
from emulator.protocol.errors import AccessDeniedException

AKID = "AKIDLOCAL"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION_TOKEN = "FwoGZXIvYXdzEXAMPLE/+session:token=="
REGION = "us-west-2"
JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/job-1"

AUTHORIZATION = b"authorization"

SECOND = timedelta(seconds=1)
PERMANENT = {AKID: KeyPair(AKID, SECRET)}
TEMPORARY = {AKID: KeyPair(AKID, SECRET, SESSION_TOKEN)}

BAD_TOKEN = "Authentication failed: Please make sure your API Key is valid"
NOT_KNOWN = "The security token included in the request is invalid."
MISMATCH = "The request signature we calculated does not match the signature you provided."


@dataclass(frozen=True)
class Request:
    """A request as an ASGI server hands it on."""

    headers: tuple[tuple[bytes, bytes], ...]
    method: str = "POST"
    path: bytes = b"/sample"
    query: bytes = b""
    body: bytes = b'{"messages": []}'

    def header(self, name: bytes) -> bytes:
        (value,) = [value for key, value in self.headers if key == name]
        return value

    def with_header(self, name: bytes, *values: bytes) -> Request:
        others = tuple(pair for pair in self.headers if pair[0] != name)
        return replace(self, headers=others + tuple((name, value) for value in values))

    def rewritten(self, name: bytes, old: bytes, new: bytes) -> Request:
        value = self.header(name)
        assert old in value
        return self.with_header(name, value.replace(old, new, 1))

    @property
    def signed_at(self) -> datetime:
        return datetime.fromisoformat(self.header(b"x-amz-date").decode())


def received(prepared: Any) -> Request:
    """What a server gets of a request that botocore prepared: its HTTP client adds Host, proxies add more."""
    url = urlsplit(prepared.url)
    wire = [(name.lower().encode(), value) for name, value in prepared.headers.items()]
    headers = [(name, value if isinstance(value, bytes) else str(value).encode()) for name, value in wire]
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", url.netloc.encode()))
    headers += [(b"x-forwarded-for", b"10.0.0.1"), (b"x-amzn-trace-id", b"Root=1-2-3"), (b"via", b"1.1 proxy")]
    return Request(tuple(headers), prepared.method, url.path.encode(), url.query.encode(), prepared.body or b"")


def signed(
    *,
    path: str = "/sample?a=1",
    headers: Mapping[str, str] | None = None,
    repeated: tuple[tuple[str, str], ...] = (),
    body: bytes = b'{"messages": []}',
    session_token: str | None = None,
    region: str = REGION,
    service: str = "sagemaker",
    secret: str = SECRET,
) -> Request:
    fields = {"Content-Type": "application/json", "X-Amzn-SageMaker-Job-Arn": JOB_ARN} | dict(headers or {})
    request = AWSRequest("POST", f"http://127.0.0.1:8080{path}", headers=fields, data=body)
    for name, value in repeated:
        request.headers.add_header(name, value)
    SigV4Auth(Credentials(AKID, secret, session_token), service, region).add_auth(request)
    arrived = received(request.prepare())
    for name in {name for name, _ in repeated}:  # preparing keeps the last of a repeated header
        values = [value.encode() for key, value in repeated if key == name]
        arrived = arrived.with_header(name.lower().encode(), *values)
    return arrived


def token_url(
    *,
    expires: int = 43_200,
    session_token: str | None = None,
    region: str = REGION,
    service: str = "sagemaker",
    secret: str = SECRET,
    host: str = "sagemaker.amazonaws.com",
    method: str = "POST",
    action: str = "CallWithBearerToken",
) -> bytes:
    """A token's content, as the generator of sagemaker-core makes it."""
    request = AWSRequest(method, f"https://{host}/", headers={"host": host}, params={"Action": action})
    credentials = Credentials(AKID, secret, session_token)
    SigV4QueryAuth(credentials, service, region, expires=expires).add_auth(request)
    url: str = request.url
    return url.removeprefix("https://").encode() + b"&Version=1"


def bearer(url: bytes) -> Request:
    token = b"sagemaker-api-key-" + base64.b64encode(url)
    return Request(((b"host", b"127.0.0.1:8080"), (b"authorization", b"Bearer " + token)))


def url_signed_at(url: bytes) -> datetime:
    match = re.search(rb"X-Amz-Date=([0-9TZ]+)", url)
    assert match is not None
    return datetime.fromisoformat(match[1].decode())


def caller(request: Request, key_pairs: Mapping[str, KeyPair] = PERMANENT, **changed: Any) -> Caller:
    arguments: dict[str, Any] = {"region": REGION, "now": datetime.now(UTC)} | changed
    return authenticate(
        method=request.method,
        raw_path=request.path,
        query_string=request.query,
        headers=request.headers,
        payload_hash=sha256(request.body).hexdigest().encode(),
        key_pairs=key_pairs,
        **arguments,
    )


def refusal(request: Request, key_pairs: Mapping[str, KeyPair] = PERMANENT, **changed: Any) -> str:
    """The text with which a request is refused, having seen that nothing raised gives a secret away."""
    with pytest.raises(AccessDeniedException) as refused:
        caller(request, key_pairs, **changed)
    error: BaseException | None = refused.value
    while error is not None:
        told = f"{error} {error!r} {error.args!r}"
        assert SECRET not in told
        assert SESSION_TOKEN not in told
        assert re.search(r"[0-9a-fA-F]{64}", told) is None, "a signature or a hash"
        error = error.__cause__ or error.__context__
    return str(refused.value)
