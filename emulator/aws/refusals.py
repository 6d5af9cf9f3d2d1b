"""Errors in the shape of each protocol: clients read an error only in that of their service."""

from __future__ import annotations

import json

from starlette.types import Scope

from emulator.protocol.endpoint import Headers
from emulator.protocol.errors import AWSError

#: Services of rest-xml.
_REST_XML = frozenset({"s3", "s3express", "s3-outposts", "cloudfront", "route53"})

#: Names that S3 has for what others call otherwise.
_S3_NAMES = {
    "AccessDeniedException": "AccessDenied",
    "InternalServiceError": "InternalError",
    "NotEmulated": "MethodNotAllowed",
    "SerializationException": "MalformedXML",
    "ValidationException": "EntityTooLarge",
}
_QUERY_NAMES = {
    "AccessDeniedException": "AccessDenied",
    "InternalServiceError": "InternalFailure",
    "NotEmulated": "InvalidAction",
    "ValidationException": "ValidationError",
}


class NotEmulated(AWSError):
    """Nobody here does this. 4xx: clients try a 5xx again, for half a minute."""

    status = 400

    @property
    def code(self) -> str:
        """The error's name on the wire."""
        return "UnknownOperationException"


class SerializationException(AWSError):
    """The body of a request cannot be read."""

    status = 400


def shaped(error: AWSError, service: str, scope: Scope, request_id: str) -> tuple[Headers, bytes]:
    """Headers and body of an error, as a client of the service reads it."""
    headers = dict(scope["headers"])
    if headers.get(b"smithy-protocol") == b"rpc-v2-cbor":
        shape = [(b"content-type", b"application/cbor"), (b"smithy-protocol", b"rpc-v2-cbor")]
        return shape, b"\xa2" + b"".join(map(_cbor, ("__type", error.code, "message", error.message)))
    if service in _REST_XML:
        text = f"<Error><Code>{_name(error, _S3_NAMES)}</Code><Message>{_text(error)}</Message>"
        return _xml(f"{text}<RequestId>{request_id}</RequestId></Error>")
    if service == "ec2":
        inner = f"<Error><Code>{_name(error, _QUERY_NAMES)}</Code><Message>{_text(error)}</Message></Error>"
        return _xml(f"<Response><Errors>{inner}</Errors><RequestID>{request_id}</RequestID></Response>")
    if headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded"):
        side = "Receiver" if error.status >= 500 else "Sender"
        inner = f"<Type>{side}</Type><Code>{_name(error, _QUERY_NAMES)}</Code><Message>{_text(error)}</Message>"
        return _xml(f"<ErrorResponse><Error>{inner}</Error><RequestId>{request_id}</RequestId></ErrorResponse>")
    document = {"__type": error.code, "message": error.message, "Message": error.message}
    kind = b"application/x-amz-json-1.1" if b"x-amz-target" in headers else b"application/json"
    return [(b"content-type", kind), (b"x-amzn-errortype", error.code.encode())], json.dumps(document).encode()


def _name(error: AWSError, names: dict[str, str]) -> str:
    return names.get(type(error).__name__, error.code)


def _text(error: AWSError) -> str:
    text = "".join(each if each >= " " or each in "\t\n\r" else "?" for each in error.message)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _xml(text: str) -> tuple[Headers, bytes]:
    body = '<?xml version="1.0" encoding="UTF-8"?>\n' + text
    return [(b"content-type", b"text/xml")], body.encode("utf-8", "replace")


def _cbor(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return b"\x79" + len(data).to_bytes(2, "big") + data
