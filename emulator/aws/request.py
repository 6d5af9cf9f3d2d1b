"""A request for one of AWS's services, whole, and the reply to it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from tempfile import SpooledTemporaryFile
from typing import IO
from urllib.parse import parse_qsl, quote, unquote

from starlette.types import Receive, Scope

from emulator.protocol.endpoint import EXCHANGE, ClientGone, Exchange, Headers
from emulator.protocol.errors import AWSError, ValidationException

#: So much of a body is in memory, before it goes to a temporary file.
IN_MEMORY = 8 * 1024 * 1024

#: The largest request for S3. AWS takes 5 GiB in one piece; moto holds it in memory.
MAX_OBJECT_BYTES = 1024 * 1024 * 1024

#: Bytes of the longest key of an object.
MAX_KEY = 1024

#: What a signature says of its service: `Credential=KEY/20261121/us-west-2/s3/aws4_request`.
_SCOPE = re.compile(rb"(?:Credential=|^)[^/,]+/[0-9]{8}/([^/]*)/([a-z0-9\-]+)/aws4_request")

#: A URL that was signed in advance, with version 4 or 2; the latter is S3's alone.
_PRESIGNED = re.compile(rb"(?:^|&)X-Amz-Credential=([^&]+)")
_PRESIGNED_2 = re.compile(rb"(?:^|&)(?:AWSAccessKeyId=[^&]*&(?:.*&)?Signature=|Signature=.*&AWSAccessKeyId=)")

#: A bucket in the name of the host: AWS's own names, and those that lead to this machine.
_VIRTUAL_HOST = re.compile(
    r"([a-z0-9][a-z0-9.-]{2,62}?)\.(?:s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?|(?:s3\.)?localhost)(?::[0-9]+)?"
)
_S3_HOST = re.compile(r"(?:.+\.)?s3[.-](?:[a-z0-9-]+\.)*amazonaws\.com(?:\.cn)?(?::[0-9]+)?")


class KeyTooLongError(AWSError):
    """An object's key is longer than S3 takes."""

    status = 400


def scope_of(scope: Scope) -> tuple[str, str] | None:
    """Region and service that a request is signed for; None if it is signed for none."""
    fields: list[tuple[bytes, bytes]] = scope["headers"]
    for name, value in fields:
        if name == b"authorization":
            if value.startswith(b"AWS "):  # version 2 of the signature, S3's alone
                return "", "s3"
            found = _SCOPE.search(value)
            return None if found is None else (found[1].decode("latin-1"), found[2].decode())
    query = scope["query_string"]
    if (presigned := _PRESIGNED.search(query)) is not None:
        found = _SCOPE.match(unquote(presigned[1].decode("latin-1")).encode("latin-1", "replace"))
        return None if found is None else (found[1].decode("latin-1"), found[2].decode())
    return ("", "s3") if _PRESIGNED_2.search(query) else None


def service_of(scope: Scope) -> str | None:
    """Which of AWS's services a request is for: signed for it, or S3's by its host or form, or STS's; None: of none."""
    if (signed := scope_of(scope)) is not None:
        return signed[1]
    headers = dict(scope["headers"])
    if b"authorization" in headers:
        return None
    kind = headers.get(b"content-type", b"") if scope["method"] == "POST" else b""
    if scope["path"] == "/" and kind.startswith(b"application/x-www-form-urlencoded"):
        return "sts"  # of the services that take forms, the one with operations for those who have no keys yet
    is_form = kind.startswith(b"multipart/form-data")
    host = headers.get(b"host", b"").decode("latin-1")
    return "s3" if is_form or _S3_HOST.fullmatch(host) else None


@dataclass(frozen=True)
class Request:
    """A request, with its body. Header names are in lower case."""

    service: str
    region: str
    method: str
    path: str  #: decoded
    raw_path: bytes
    query: bytes
    headers: Headers
    file: IO[bytes] = field(repr=False)
    size: int

    @classmethod
    def of_ours(cls, service: str, region: str, method: str, path: str, **more: object) -> Request:
        """A request that we make ourselves: `query`, `headers`, `body`."""
        body = more.get("body", b"")
        given = more.get("headers", {})
        query = more.get("query", b"")
        assert isinstance(body, bytes)
        assert isinstance(given, dict)
        assert isinstance(query, bytes)
        fields = {"host": "localhost", "authorization": signed_as(service, region), **given}
        return cls(
            service,
            region,
            method,
            path,
            quote(path).encode(),
            query,
            [(name.encode(), str(value).encode("latin-1", "replace")) for name, value in fields.items()],
            io.BytesIO(body),
            len(body),
        )

    def header(self, name: str) -> str:
        """The value of a header; nothing if it is not there."""
        key = name.encode()
        return next((value.decode("latin-1") for each, value in self.headers if each == key), "")

    @cached_property
    def body(self) -> bytes:
        """All of the body. Not for S3's objects."""
        self.file.seek(0)
        return self.file.read()

    @cached_property
    def operation(self) -> str:
        """The operation's name, as far as the request itself says it: of JSON and of forms; else nothing."""
        if target := self.header("x-amz-target"):
            return target.rpartition(".")[2]
        return self.form.get("Action", "")

    @cached_property
    def form(self) -> dict[str, str]:
        """The parameters of a request of the query protocol."""
        if not self.header("content-type").startswith("application/x-www-form-urlencoded"):
            return {}
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The parameters of the URL."""
        return dict(parse_qsl(self.query.decode("latin-1"), keep_blank_values=True))

    @cached_property
    def bucket_and_key(self) -> tuple[str, str]:
        """Of a request for S3; nothing, of one that names none."""
        bucket, _, key = self.path.lstrip("/").partition("/")
        return bucket, key

    def with_body(self, body: bytes) -> Request:
        """The same with another body."""
        fields = [(name, value) for name, value in self.headers if name not in (b"content-length", b"content-encoding")]
        return replace(self, file=io.BytesIO(body), size=len(body), headers=fields)

    def digest(self) -> bytes:
        """SHA-256 of the body, in hexadecimal digits."""
        self.file.seek(0)
        found = sha256()
        while piece := self.file.read(IN_MEMORY):
            found.update(piece)
        return found.hexdigest().encode()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answers."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header; nothing if it is not there."""
        return next(self._values(name), "")

    def _values(self, name: str) -> Iterator[str]:
        return (value.decode("latin-1") for each, value in self.headers if each.decode("latin-1").lower() == name)


def signed_as(service: str, region: str) -> str:
    """An Authorization header that says service and region, and proves nothing."""
    credential = f"local/20260101/{region}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"


async def read_request(service: str, region: str, scope: Scope, receive: Receive, limit: int) -> Request:
    """A request with its body, of S3 with its bucket in the path.

    Raises ValidationException, KeyTooLongError, ClientGone.
    """
    file, size = await _read_body(scope, receive, MAX_OBJECT_BYTES if service == "s3" else limit)
    path, raw_path = scope["path"], scope["raw_path"]
    fields: Headers = list(scope["headers"])
    if service == "s3":
        host = next((value.decode("latin-1") for name, value in fields if name == b"host"), "")
        if (found := _VIRTUAL_HOST.fullmatch(host)) is not None:
            path, raw_path = f"/{found[1]}{path}", f"/{found[1]}".encode() + raw_path
            fields = [(name, b"localhost" if name == b"host" else value) for name, value in fields]
        if len(path.lstrip("/").partition("/")[2].encode()) > MAX_KEY:
            raise KeyTooLongError("Your key is too long")
    elif service == "sts" and not any(name == b"authorization" for name, _ in fields):
        fields.append((b"authorization", signed_as(service, region).encode()))  # moto takes it for S3's else
    return Request(service, region, scope["method"], path, raw_path, scope["query_string"], fields, file, size)


async def _read_body(scope: Scope, receive: Receive, limit: int) -> tuple[IO[bytes], int]:
    exchange: Exchange = scope["extensions"][EXCHANGE]
    headers = dict(scope["headers"])
    announced = headers.get(b"content-length", b"")
    _refuse_beyond(limit, int(announced) if announced.isdigit() else 0)
    if (whole := exchange.whole_body()) is not None:
        _refuse_beyond(limit, len(whole))
        return io.BytesIO(whole), len(whole)
    file: IO[bytes] = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # it lives as long as the request
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        _refuse_beyond(limit, size)
        file.write(piece)
        if not message.get("more_body", False):
            file.seek(0)
            return file, size


def _refuse_beyond(limit: int, size: int) -> None:
    if size > limit:
        hint = "" if limit == MAX_OBJECT_BYTES else "; --max-request-bytes sets another limit"
        raise ValidationException(f"The request body is larger than {limit} bytes{hint}")
