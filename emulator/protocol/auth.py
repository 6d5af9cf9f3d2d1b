"""Who calls: SigV4 signatures and Bearer tokens, verified as `--auth strict` demands. No I/O, no clock.

The oracle for both is botocore's signers (see the tests); the token's form is the one that the package
`sagemaker-core` generates.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

from emulator.protocol import sigv4
from emulator.protocol.errors import AccessDeniedException

_SERVICE = "sagemaker"

#: What an S3 client may say in the place of a hash of its body: nothing, or that each piece has a signature.
_UNHASHED = re.compile(rb"UNSIGNED-PAYLOAD|STREAMING-[A-Z0-9-]+")

_SKEW = timedelta(minutes=15)

_TOKEN_PREFIX = b"sagemaker-api-key-"
_TOKEN_HOST = b"sagemaker.amazonaws.com"
_TOKEN_URL = _TOKEN_HOST + b"/?"
_TOKEN_MAX_SECONDS = 43_200
_URL_MAX_SECONDS = 604_800
_TOKEN_CONSTANTS = {
    b"Action": b"CallWithBearerToken",
    b"Version": b"1",
    b"X-Amz-Algorithm": sigv4.ALGORITHM.encode(),
    b"X-Amz-SignedHeaders": b"host",
}
# The signature itself, and what the generator appends after it has signed.
_TOKEN_UNSIGNED = {b"X-Amz-Signature", b"Version"}
_NO_PAYLOAD = sha256(b"").hexdigest().encode()

# OBSERVED: the real service's one answer to any bad or expired Bearer token.
BAD_TOKEN = "Authentication failed: Please make sure your API Key is valid"  # noqa: S105
# ASSUMED: how Job Runtime refuses SigV4 is not known. The texts here and below are those that other AWS
# services send or document, less the canonical request that some append; the error is AccessDeniedException.
EXPIRED = "The security token included in the request is expired"
_MISSING = "Missing Authentication Token"
_NOT_KNOWN = "The security token included in the request is invalid."
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An access key that the emulator knows; with a session token, that token is demanded too."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and how that was proved."""

    access_key_id: str
    kind: Literal["sigv4", "bearer"]


def parse_key_pair(text: str) -> KeyPair:
    """Read the setting `AKID:SECRET[:SESSION_TOKEN]`.

    Raises ValueError, which quotes nothing of the text.
    """
    # Printable ASCII; a secret holds no colon, a session token may.
    match = re.fullmatch(r"([A-Za-z0-9_.-]+):([!-9;-~]+)(?::([!-~]+))?", text)
    if match is None:
        raise ValueError("a key pair is written ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]")
    return KeyPair(match[1], match[2], match[3])


def authenticate(
    *,
    method: str,
    raw_path: bytes,
    query_string: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    payload_hash: bytes,
    key_pairs: Mapping[str, KeyPair],
    region: str | None,
    now: datetime,
    service: str = _SERVICE,
) -> Caller:
    """Tell who sent a request, given as ASGI gives it (header names in lower case), with its body's SHA-256 in hex.

    `key_pairs` are keyed by access key id; with `region` None any region is accepted; `now` is aware.
    Raises AccessDeniedException, whose text holds neither a secret nor the signature that was expected.
    """
    fields = sigv4.canonical_fields(headers)
    scheme, _, credentials = fields.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and service == _SERVICE:
        try:
            return Caller(_verify_token(credentials, key_pairs, region, now), "bearer")
        except AccessDeniedException:
            raise AccessDeniedException(BAD_TOKEN) from None
    if not scheme and service == "s3" and b"X-Amz-Signature=" in query_string:
        access_key_id = _verify_presigned(
            method=method,
            raw_path=raw_path,
            query_string=query_string,
            fields=fields,
            key_pairs=key_pairs,
            region=region,
            now=now,
        )
        return Caller(access_key_id, "sigv4")
    if not scheme.startswith(b"AWS4-"):
        if service == "s3" and (scheme == b"AWS" or b"AWSAccessKeyId=" in query_string):
            raise AccessDeniedException("Only signatures of version 4 are verified: Config(signature_version='s3v4')")
        raise AccessDeniedException(_MISSING)
    if scheme != sigv4.ALGORITHM.encode():
        raise AccessDeniedException(f"Unsupported AWS 'algorithm' (only {sigv4.ALGORITHM} for now).")

    claimed = _parameters(credentials)
    signed_at = _signed_at(fields)
    _check_skew(signed_at, now)
    signed_fields = _signed_fields(claimed[b"SignedHeaders"], fields)
    said = fields.get(b"x-amz-content-sha256", payload_hash)
    # ASSUMED: UNSIGNED-PAYLOAD is refused: the service model allows it for no operation. Of S3 it is taken; the
    # signatures of pieces are not looked at.
    if said != payload_hash and not (service == "s3" and _UNHASHED.fullmatch(said)):
        raise AccessDeniedException("The provided 'x-amz-content-sha256' header does not match what was computed.")
    access_key_id = _verify_signature(
        sigv4.canonical_request(
            method, raw_path, sigv4.query_pairs(query_string), signed_fields, said, is_s3=service == "s3"
        ),
        credential=claimed[b"Credential"],
        signed_at=signed_at,
        signature=claimed[b"Signature"],
        session_token=fields.get(b"x-amz-security-token", b""),
        key_pairs=key_pairs,
        region=region,
        service=service,
    )
    return Caller(access_key_id, "sigv4")


def _verify_presigned(
    *,
    method: str,
    raw_path: bytes,
    query_string: bytes,
    fields: Mapping[bytes, bytes],
    key_pairs: Mapping[str, KeyPair],
    region: str | None,
    now: datetime,
) -> str:
    """The access key id of a URL of S3's that was signed in advance, which says nothing of a body."""
    pairs = sigv4.query_pairs(query_string)
    claimed = dict(pairs)
    signed_at = sigv4.parse_timestamp(claimed.get(b"X-Amz-Date", b""))
    expires = claimed.get(b"X-Amz-Expires", b"")
    if (
        len(claimed) != len(pairs)
        or claimed.get(b"X-Amz-Algorithm") != sigv4.ALGORITHM.encode()
        or signed_at is None
        or not re.fullmatch(rb"[0-9]{1,6}", expires)
        or not 1 <= int(expires) <= _URL_MAX_SECONDS
    ):
        raise AccessDeniedException("The parameters of the URL's signature are not valid")
    if not -_SKEW <= now - signed_at <= timedelta(seconds=int(expires)):
        raise AccessDeniedException("Request has expired")
    signed_fields = _signed_fields(claimed.get(b"X-Amz-SignedHeaders", b""), fields, every=False)
    return _verify_signature(
        sigv4.canonical_request(
            method,
            raw_path,
            [pair for pair in pairs if pair[0] != b"X-Amz-Signature"],
            signed_fields,
            b"UNSIGNED-PAYLOAD",
            is_s3=True,
        ),
        credential=claimed.get(b"X-Amz-Credential", b""),
        signed_at=signed_at,
        signature=claimed[b"X-Amz-Signature"],
        session_token=claimed.get(b"X-Amz-Security-Token", b""),
        key_pairs=key_pairs,
        region=region,
        service="s3",
    )


def _verify_token(token: bytes, key_pairs: Mapping[str, KeyPair], region: str | None, now: datetime) -> str:
    """The access key id of a Bearer token: a presigned URL without its scheme, in base64."""
    try:
        url = base64.b64decode(token.removeprefix(_TOKEN_PREFIX), validate=True)
    except ValueError:
        raise AccessDeniedException(BAD_TOKEN) from None
    pairs = sigv4.query_pairs(url.removeprefix(_TOKEN_URL))
    claimed = dict(pairs)
    expires = claimed.get(b"X-Amz-Expires", b"")
    signed_at = sigv4.parse_timestamp(claimed.get(b"X-Amz-Date", b""))
    if (
        not token.startswith(_TOKEN_PREFIX)
        or not url.startswith(_TOKEN_URL)
        or len(claimed) != len(pairs)
        or not _TOKEN_CONSTANTS.items() <= claimed.items()
        or not re.fullmatch(rb"[0-9]{1,5}", expires)
        or not 1 <= int(expires) <= _TOKEN_MAX_SECONDS
        or signed_at is None
        # ASSUMED: a token may be as far ahead of our clock as a signed request.
        or not -_SKEW <= now - signed_at <= timedelta(seconds=int(expires))
    ):
        raise AccessDeniedException(BAD_TOKEN)
    signed = [pair for pair in pairs if pair[0] not in _TOKEN_UNSIGNED]
    return _verify_signature(
        sigv4.canonical_request("POST", b"/", signed, {b"host": _TOKEN_HOST}, _NO_PAYLOAD),
        credential=claimed.get(b"X-Amz-Credential", b""),
        signed_at=signed_at,
        signature=claimed.get(b"X-Amz-Signature", b""),
        session_token=claimed.get(b"X-Amz-Security-Token", b""),
        key_pairs=key_pairs,
        region=region,
    )


def _verify_signature(
    canonical: bytes,
    *,
    credential: bytes,
    signed_at: datetime,
    signature: bytes,
    session_token: bytes,
    key_pairs: Mapping[str, KeyPair],
    region: str | None,
    service: str = _SERVICE,
) -> str:
    """The access key id whose secret made the signature."""
    # Scope, key, signature, session token: the order that dynalite's source records of AWS.
    access_key_id, scope = _scope(credential, signed_at, region, service)
    key_pair = key_pairs.get(access_key_id)
    if key_pair is None:
        raise AccessDeniedException(_NOT_KNOWN)
    expected = sigv4.sign(key_pair.secret_access_key, signed_at, scope, canonical)
    if not hmac.compare_digest(expected, signature):
        raise AccessDeniedException(_MISMATCH)
    if not hmac.compare_digest((key_pair.session_token or "").encode(), session_token):
        raise AccessDeniedException(_NOT_KNOWN)
    return access_key_id


def _scope(credential: bytes, signed_at: datetime, region: str | None, service: str) -> tuple[str, Sequence[str]]:
    """Access key id and scope (date, region, service, terminator) of a Credential."""
    access_key_id, *scope = credential.decode("latin-1").rsplit("/", 4)
    if len(scope) != 4:
        raise AccessDeniedException(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."
        )
    date, scope_region, scope_service, terminator = scope
    if region is not None and scope_region != region:
        raise AccessDeniedException(f"Credential should be scoped to a valid region, not '{scope_region}'.")
    if scope_service != service:
        raise AccessDeniedException(f"Credential should be scoped to correct service: '{service}'.")
    if terminator != sigv4.TERMINATOR:
        raise AccessDeniedException(f"Credential should be scoped with a valid terminator: '{sigv4.TERMINATOR}'.")
    if date != sigv4.timestamp(signed_at)[:8]:
        raise AccessDeniedException(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP."
        )
    return access_key_id, scope


def _parameters(credentials: bytes) -> dict[bytes, bytes]:
    """The parameters of the Authorization header: each must be there once, with a value."""
    pairs = [part.strip().partition(b"=")[::2] for part in credentials.split(b",")]
    names = [name for name, value in pairs if value]
    for name in (b"Credential", b"Signature", b"SignedHeaders"):
        if names.count(name) != 1:
            raise AccessDeniedException(f"Authorization header requires '{name.decode()}' parameter.")
    return {name: value for name, value in pairs if value}


def _signed_fields(names: bytes, fields: Mapping[bytes, bytes], *, every: bool = True) -> dict[bytes, bytes]:
    """The header fields that are signed, sorted; `every`: all that must be signed are among them."""
    signed = sorted(set(names.split(b";")))
    if b"host" not in signed:
        raise AccessDeniedException("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    # ASSUMED: beside the x-amz-* that AWS documents, the service's own headers, which botocore signs. Not every
    # x-amzn-*: proxies add X-Amzn-Trace-Id, which botocore does not sign.
    if every and any(name.startswith((b"x-amz-", b"x-amzn-sagemaker-")) and name not in signed for name in fields):
        raise AccessDeniedException("There were headers present in the request which were not signed")
    if not fields.keys() >= set(signed):
        raise AccessDeniedException(_MISMATCH)
    return {name: fields[name] for name in signed}


def _signed_at(fields: Mapping[bytes, bytes]) -> datetime:
    """When the request says it was signed: X-Amz-Date, without it Date."""
    if (date := fields.get(b"x-amz-date")) is not None:
        signed_at = sigv4.parse_timestamp(date)
    elif (date := fields.get(b"date")) is not None:
        signed_at = sigv4.parse_timestamp(date) or sigv4.parse_http_date(date)
    else:
        raise AccessDeniedException(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        )
    if signed_at is None:
        raise AccessDeniedException("Date must be in ISO-8601 'basic format'.")
    return signed_at


def _check_skew(signed_at: datetime, now: datetime) -> None:
    sent, clock = sigv4.timestamp(signed_at), sigv4.timestamp(now)
    if now - signed_at > _SKEW:
        limit = sigv4.timestamp(now - _SKEW)
        raise AccessDeniedException(f"Signature expired: {sent} is now earlier than {limit} ({clock} - 15 min.)")
    if signed_at - now > _SKEW:
        limit = sigv4.timestamp(now + _SKEW)
        raise AccessDeniedException(
            f"Signature not yet current: {sent} is still later than {limit} ({clock} + 15 min.)"
        )
