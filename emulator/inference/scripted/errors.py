"""Errors of the model server, as vLLM and OpenAI write them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from emulator.inference.scripted.reply import Error

#: vLLM's types.
_VLLM = {
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
}

#: OpenAI's types and codes.
_OPENAI: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}

_PHRASES = {int(status): status.phrase for status in HTTPStatus}


def error_body(error: Error) -> dict[str, Any]:
    """The body of an error. What it does not say is what is usual with its status."""
    status, code = error.status, error.code
    is_ours = status < 500
    if error.style == "vllm":
        kind = _VLLM.get(status, "BadRequestError" if is_ours else "InternalServerError")
        written: str | int | None = status if code is None else code
    else:
        kind, usual = _OPENAI.get(status, ("invalid_request_error" if is_ours else "server_error", None))
        written = usual if code is None else code
    message = f"{_PHRASES.get(status, 'An error')} (scripted)" if error.message is None else error.message
    return {"error": {"message": message, "type": error.type or kind, "param": error.param, "code": written}}
