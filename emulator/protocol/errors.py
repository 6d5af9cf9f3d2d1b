"""The errors that AWS clients know, and how they look on the wire.

AWSError
├── of the service model
│   ├── ValidationException            400
│   ├── ServiceQuotaExceededException  402
│   ├── AccessDeniedException          403
│   ├── ResourceNotFoundException      404
│   ├── ConflictException              409   (CompleteRollout and UpdateReward only)
│   ├── ThrottlingException            429
│   └── InternalServiceError           500
├── of the control plane's model
│   ├── ResourceNotFound               400
│   ├── ResourceInUse                  400
│   └── ResourceLimitExceeded          400
└── of the protocol itself
    ├── SerializationException         400   the body is not what the protocol demands
    └── UnknownOperationException      404   no such path, or not with this method
"""

from __future__ import annotations

import json
from typing import ClassVar

#: The service model's limit for an error's Message.
MAX_MESSAGE = 1024


class AWSError(Exception):
    """An error as AWS names it; the class's name is its name on the wire."""

    status: ClassVar[int]

    def __init__(self, message: str, *, retry_after: str | None = None) -> None:
        self.message = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
        self.retry_after = retry_after
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The error's name on the wire."""
        return type(self).__name__


class ValidationException(AWSError):
    """The request is not valid."""

    status = 400


class ServiceQuotaExceededException(AWSError):
    """A quota is used up."""

    status = 402


class AccessDeniedException(AWSError):
    """The caller may not do this, or is not who it says."""

    status = 403


class ResourceNotFoundException(AWSError):
    """The resource does not exist."""

    status = 404


class ConflictException(AWSError):
    """The resource's state does not allow the request."""

    status = 409


class ThrottlingException(AWSError):
    """Too many requests."""

    status = 429


class InternalServiceError(AWSError):
    """The service failed; the request may be sent again."""

    status = 500


class ResourceNotFound(AWSError):
    """The resource does not exist: in the control plane's words."""

    status = 400


class ResourceInUse(AWSError):
    """The resource exists already, or is in use."""

    status = 400


class ResourceLimitExceeded(AWSError):
    """A quota of resources is used up."""

    status = 400


class SerializationException(AWSError):
    """The body is not JSON, or a member has the wrong type."""

    status = 400


class UnknownOperationException(AWSError):
    """There is no such operation."""

    status = 404


def rest_json_body(error: AWSError) -> bytes:
    """The body of a rest-json error."""
    return _dump({"Message": error.message})


def aws_json_body(error: AWSError) -> bytes:
    """The body of an awsJson1.1 error."""
    return _dump({"__type": error.code, "message": error.message})


def openai_body(error: AWSError) -> bytes:
    """The body of an error on the OpenAI-style paths: an AWS client and an OpenAI client can each read it."""
    # ASSUMED: one body in both shapes; what the service's own look like on these paths is not public.
    shape = {"message": error.message, "type": error.code, "code": error.code}
    return _dump({"Message": error.message, "error": shape})


def _dump(document: object) -> bytes:
    # Messages may quote a client's bytes, lone surrogates among them: escapes are always valid JSON.
    return json.dumps(document, separators=(",", ":")).encode()
