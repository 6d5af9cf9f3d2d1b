"""What every operation works with."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.inference.model_server import ModelServer
from emulator.metrics import Metrics
from emulator.protocol.errors import (
    AWSError,
    ConflictException,
    InternalServiceError,
    ResourceNotFoundException,
    ValidationException,
)
from emulator.store import Store, StoreError
from emulator.trajectory import (
    InvalidRewards,
    InvalidTransition,
    TokenReused,
    TrajectoryError,
    UnknownJob,
    UnknownTrajectory,
)


@dataclass(slots=True)
class Runtime:
    """The store, the model server, the limits between them, and what is counted."""

    store: Store
    model_server: ModelServer
    metrics: Metrics
    max_answer_bytes: int
    max_in_flight: int


# ASSUMED: CompleteRollout and UpdateReward call a state that does not fit a conflict; Sample models no such error, and
# calls it invalid.
_ERRORS: dict[type[TrajectoryError], type[AWSError]] = {
    UnknownTrajectory: ResourceNotFoundException,
    UnknownJob: ValidationException,  # OBSERVED: "Could not find job", 400
    TokenReused: ConflictException,
    InvalidRewards: ValidationException,
}


#: What `aws_error` says in the words of AWS.
DOMAIN_ERRORS = (TrajectoryError, StoreError)


def aws_error(
    error: TrajectoryError | StoreError, *, invalid_transition: type[AWSError] = ConflictException
) -> AWSError:
    """What the domain or the store raised, in the words of AWS."""
    if isinstance(error, StoreError):
        return InternalServiceError(str(error))
    if isinstance(error, InvalidTransition):
        return invalid_transition(str(error))
    return _ERRORS[type(error)](str(error))
