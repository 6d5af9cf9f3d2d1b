"""SampleWithResponseStream: as Sample, but the model's bytes leave as they arrive."""

from __future__ import annotations

from emulator.operations.capture import take_turn
from emulator.operations.runtime import Runtime
from emulator.operations.sample import model_error, model_path
from emulator.protocol.answer import StreamAnswer


async def sample_with_response_stream(
    runtime: Runtime, *, job_arn: str, trajectory_id: str, body: bytes
) -> StreamAnswer:
    """One request, one stream; the turn is stored before the stream's last bytes leave.

    The model's answer has begun before ours does, so that its refusal is still an error response.
    Raises what `take_turn` raises, and `model_error` for what the model refused.
    """
    capture = await take_turn(runtime, job_arn=job_arn, trajectory_id=trajectory_id, path=model_path(body), body=body)
    if not capture.is_success:
        raise model_error(capture, await capture.read())
    return StreamAnswer(capture.relay, content_type=capture.content_type)
