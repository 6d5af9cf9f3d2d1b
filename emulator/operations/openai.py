"""The OpenAI-style paths: another door to Sample and SampleWithResponseStream."""

from __future__ import annotations

from time import perf_counter

from emulator.calls import current_call
from emulator.inference.model_server import ModelRequest, ModelServerError, header_lines
from emulator.operations.capture import AnswerTooLarge, take_turn
from emulator.operations.runtime import Runtime
from emulator.operations.sample import CHAT_COMPLETIONS, COMPLETIONS
from emulator.protocol.answer import Answer, StreamAnswer
from emulator.protocol.errors import InternalServiceError

MODELS = "/v1/models"


async def openai_chat_completion(
    runtime: Runtime, *, job_arn: str, trajectory_id: str, body: bytes
) -> Answer | StreamAnswer:
    """`/v1/chat/completions`, whole or as events, as the model decides. Raises what `take_turn` raises."""
    return await _through(runtime, job_arn, trajectory_id, CHAT_COMPLETIONS, body)


async def openai_completion(
    runtime: Runtime, *, job_arn: str, trajectory_id: str, body: bytes
) -> Answer | StreamAnswer:
    """`/v1/completions`, whole or as events, as the model decides. Raises what `take_turn` raises."""
    return await _through(runtime, job_arn, trajectory_id, COMPLETIONS, body)


async def list_models(runtime: Runtime) -> Answer:
    """`GET /v1/models`: the model server's own answer. Raises InternalServiceError."""
    call = current_call()
    request = ModelRequest(MODELS, method="GET", header_lines=header_lines(call.ask("GET", MODELS) or {}))
    status, failure = None, None
    try:
        answer = await runtime.model_server.send(request)
        status = answer.status
        try:
            body = b""
            async for piece in answer:
                body += piece
                if len(body) > runtime.max_answer_bytes:
                    raise AnswerTooLarge(runtime.max_answer_bytes)
        finally:
            answer.close()
    except (ModelServerError, AnswerTooLarge) as error:
        failure = type(error).__name__
        raise InternalServiceError(f"Model server: {error}") from error
    finally:
        call.answered_at = perf_counter()
        if call.spans is not None:
            call.spans.answered(status=status, error=failure)
    return Answer(body, answer.status, answer.headers.get("content-type"))


async def _through(runtime: Runtime, job_arn: str, trajectory_id: str, path: str, body: bytes) -> Answer | StreamAnswer:
    capture = await take_turn(runtime, job_arn=job_arn, trajectory_id=trajectory_id, path=path, body=body)
    if capture.is_success and capture.is_event_stream:
        return StreamAnswer(capture.relay, capture.status, capture.content_type)
    # ASSUMED: what the model refuses passes through as it is; OpenAI clients understand its errors best.
    headers = ((b"retry-after", capture.retry_after.encode("latin-1", "replace")),) if capture.retry_after else ()
    return Answer(await capture.read(), capture.status, capture.content_type, headers)
