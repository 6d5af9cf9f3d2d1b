"""UpdateReward: submit the rewards of a sealed trajectory."""

from __future__ import annotations

from emulator.operations.runtime import DOMAIN_ERRORS, Runtime, aws_error
from emulator.protocol.answer import Answer


async def update_reward(
    runtime: Runtime, *, job_arn: str, trajectory_id: str, rewards: list[float], client_token: str | None
) -> Answer:
    """Give one reward for the trajectory, or one for each completed turn.

    The same request with the same client token succeeds again without effect. Raises ResourceNotFoundException,
    ConflictException (not sealed, rewarded already, or the token was used for something else), ValidationException
    (rewards that do not fit, unknown job), InternalServiceError.
    """
    try:
        await runtime.store.update_reward(
            job_arn=job_arn, trajectory_id=trajectory_id, rewards=rewards, client_token=client_token
        )
    except DOMAIN_ERRORS as error:
        raise aws_error(error) from error
    return Answer()
