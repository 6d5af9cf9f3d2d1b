"""CompleteRollout: seal a trajectory, so that no turn is appended any more."""

from __future__ import annotations

from emulator.operations.runtime import DOMAIN_ERRORS, Runtime, aws_error
from emulator.protocol.answer import Answer
from emulator.trajectory import Status


async def complete_rollout(
    runtime: Runtime, *, job_arn: str, trajectory_id: str, status: str | None, client_token: str | None
) -> Answer:
    """Seal as `ready` (the default) or `failed`.

    The same request with the same client token succeeds again without effect. Raises ResourceNotFoundException,
    ConflictException (sealed already, or the token was used for something else), ValidationException (unknown job),
    InternalServiceError.
    """
    try:
        await runtime.store.complete_rollout(
            job_arn=job_arn,
            trajectory_id=trajectory_id,
            completion=Status(status or Status.READY),
            client_token=client_token,
        )
    except DOMAIN_ERRORS as error:
        raise aws_error(error) from error
    return Answer()
