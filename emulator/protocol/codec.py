"""rest-json: from headers and body to an operation's keyword arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from emulator.protocol.errors import SerializationException, ValidationException
from emulator.protocol.service_model import Member, OperationModel
from emulator.protocol.validation import validate

#: How rest-json writes doubles for which JSON has no number.
NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def decode(operation: OperationModel, headers: Mapping[bytes, bytes], body: bytes) -> dict[str, Any]:
    """The keyword arguments of an operation, decoded and validated; optional members that are absent are None.

    A member that belongs into a header may stand in a JSON body instead: the SageMaker SDK sends JobArn so.
    Raises SerializationException for what is no JSON or has the wrong type, ValidationException for what
    breaks a constraint of the service model.
    """
    document = {} if operation.has_payload else _document(body)
    arguments: dict[str, Any] = {}
    for member in operation.members:
        value: Any = body
        if not member.is_payload:
            value = _from_document(member, document[member.name]) if member.name in document else None
            if member.header is not None and (raw := headers.get(member.header)) is not None:
                value = _from_header(member, raw, value)
        arguments[member.keyword] = value
    validate(operation, arguments)
    return arguments


def _document(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    # ASSUMED: what is no JSON, or of a wrong type, is a SerializationException; no operation of the model names one.
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise SerializationException("The request body is not valid JSON") from None
    if not isinstance(document, dict):
        raise SerializationException("The request body must be a JSON object")
    return document


def _from_document(member: Member, value: Any) -> Any:
    if value is None:
        return None
    if member.type == "string":
        if not isinstance(value, str):
            raise SerializationException(f"{member.name} must be a string")
        if not _is_unicode(value):
            raise SerializationException(f"{member.name} must be Unicode; it holds half of a surrogate pair")
        return value
    assert member.type == "list", f"{member.name}: no input of the service has type {member.type} in JSON"
    if not isinstance(value, list):
        raise SerializationException(f"{member.name} must be a list of numbers")
    return [_double(member, item) for item in value]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _double(member: Member, value: Any) -> float:
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SerializationException(f"{member.name} must be a list of numbers")
    try:
        return float(value)
    except OverflowError:
        raise ValidationException(f"{member.name} holds a number that does not fit a double") from None


def _from_header(member: Member, raw: bytes, in_body: str | None) -> str:
    value = _header_text(raw)
    # ASSUMED: two job ARNs that differ are refused, rather than one of them ignored.
    if in_body is not None and in_body != value:
        raise ValidationException(
            f"{member.name} in the header {(member.header or b'').decode()} and in the body are not the same"
        )
    return value


@lru_cache(maxsize=4096)  # the turns of a rollout come with the same job and trajectory
def _header_text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # what http.client sends for é
