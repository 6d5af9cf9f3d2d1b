"""Sample: ask the model, capture the turn, answer with the model's bytes."""

from __future__ import annotations

import json

from emulator.completion import error_message
from emulator.operations.capture import Capture, take_turn
from emulator.operations.runtime import Runtime
from emulator.protocol.answer import Answer
from emulator.protocol.errors import AWSError, InternalServiceError, ThrottlingException, ValidationException

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


async def sample(runtime: Runtime, *, job_arn: str, trajectory_id: str, body: bytes) -> Answer:
    """One request, one whole answer; the turn is stored when this returns.

    Raises what `take_turn` raises, and `model_error` for what the model refused.
    """
    # ASSUMED: Sample has no client token, so what is sent again, because its answer was lost, is another turn.
    capture = await take_turn(runtime, job_arn=job_arn, trajectory_id=trajectory_id, path=model_path(body), body=body)
    answer = await capture.read()
    if not capture.is_success:
        raise model_error(capture, answer)
    return Answer(answer, content_type=capture.content_type)


def model_path(body: bytes) -> str:
    """Where a sample's body belongs: a plain prompt to completions, anything else to chat completions."""
    # ASSUMED: the service takes both forms; its documentation shows chat completions only.
    if b'"messages"' in body or b'"prompt"' not in body:
        return CHAT_COMPLETIONS
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return CHAT_COMPLETIONS
    is_plain = isinstance(document, dict) and "prompt" in document and "messages" not in document
    return COMPLETIONS if is_plain else CHAT_COMPLETIONS


def model_error(capture: Capture, answer: bytes) -> AWSError:
    """What the model refused, as an error of the service, with the model's own message."""
    message = error_message(answer) or f"The model server answered with status {capture.status}"
    # ASSUMED: which of the service's errors a model's refusal becomes.
    match capture.status:
        case 400 | 404 | 422:
            return ValidationException(message)
        case 429:
            return ThrottlingException(message, retry_after=capture.retry_after)
        case _:
            return InternalServiceError(message)
