"""What every operation works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from emulator.inference.model_server import ModelServer
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
    """The store, the model server, and the limits between them."""

    store: Store
    model_server: ModelServer
    max_answer_bytes: int
    max_in_flight: int
    in_flight: int = 0


# ASSUMED: CompleteRollout and UpdateReward call a state that does not fit a conflict; Sample models no such error, and
# calls it invalid.
_ERRORS: dict[type[TrajectoryError], type[AWSError]] = {
    UnknownTrajectory: ResourceNotFoundException,
    UnknownJob: ValidationException,  # OBSERVED: "Could not find job", 400
    InvalidTransition: ConflictException,
    TokenReused: ConflictException,
    InvalidRewards: ValidationException,
}


@contextmanager
def aws_errors(*, invalid_transition: type[AWSError] = ConflictException) -> Iterator[None]:
    """Say what the domain and the store raise in the words of AWS."""
    try:
        yield
    except InvalidTransition as error:
        raise invalid_transition(str(error)) from error
    except TrajectoryError as error:
        raise _ERRORS[type(error)](str(error)) from error
    except StoreError as error:
        raise InternalServiceError(str(error)) from error
