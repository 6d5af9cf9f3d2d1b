"""The arithmetic of AWS Signature Version 4: canonical request, times, signature. `auth` decides.

The rules are those of "AWS Signature Version 4 for API requests" (IAM user guide).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from urllib.parse import quote_from_bytes, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"

_TIMESTAMP = "%Y%m%dT%H%M%SZ"


def sign(secret_access_key: str, signed_at: datetime, scope: Sequence[str], canonical: bytes) -> bytes:
    """The signature, in hexadecimal digits; `scope` is date, region, service, terminator."""
    to_sign = "\n".join([ALGORITHM, timestamp(signed_at), "/".join(scope), sha256(canonical).hexdigest()])
    key = f"AWS4{secret_access_key}".encode()
    for part in (*scope, to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex().encode()


def canonical_request(
    method: str,
    path: bytes,
    query: Iterable[tuple[bytes, bytes]],
    signed_fields: Mapping[bytes, bytes],
    payload_hash: bytes,
    *,
    is_s3: bool = False,
) -> bytes:
    """The canonical request; `path` is as it was sent, `signed_fields` are canonical and sorted."""
    # S3 takes the path as it was sent; for others it is put in order, and encoded once more.
    canonical_path = path.decode("latin-1") if is_s3 else _canonical_path(path)
    return b"\n".join(
        [
            method.encode(),
            canonical_path.encode("latin-1"),
            _canonical_query(query).encode(),
            *(name + b":" + value for name, value in signed_fields.items()),
            b"",
            b";".join(signed_fields),
            payload_hash,
        ]
    )


def canonical_fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Header fields in canonical form: blanks folded, the values of a repeated name joined in their order."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        folded = b" ".join(value.split())
        fields[name] = fields[name] + b"," + folded if name in fields else folded
    return fields


def query_pairs(query: bytes) -> list[tuple[bytes, bytes]]:
    """The names and values of a query string, decoded. A plus sign stays one."""
    if not query:
        return []
    parts = (part.partition(b"=") for part in query.split(b"&"))
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in parts]


def timestamp(moment: datetime) -> str:
    """A moment, which is aware, as SigV4 writes it."""
    return moment.astimezone(UTC).strftime(_TIMESTAMP)


def parse_timestamp(text: bytes) -> datetime | None:
    """The moment of an X-Amz-Date, or None if the text is not one."""
    try:
        moment = datetime.fromisoformat(text.decode("latin-1"))
    except ValueError:
        return None
    # fromisoformat reads many forms, SigV4 has one.
    return moment if moment.strftime(_TIMESTAMP).encode() == text else None


def parse_http_date(text: bytes) -> datetime | None:
    """The moment of a Date header, or None if the text is not one."""
    try:
        moment = parsedate_to_datetime(text.decode("latin-1"))
        # Naive: botocore writes the zone as -0000, which means UTC.
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _canonical_path(path: bytes) -> str:
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    slash = b"/" if segments and path.endswith(b"/") else b""
    return quote_from_bytes(b"/" + b"/".join(segments) + slash)


def _canonical_query(pairs: Iterable[tuple[bytes, bytes]]) -> str:
    encoded = sorted((quote_from_bytes(name, safe=""), quote_from_bytes(value, safe="")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)
