"""The trajectory and its state machine. Pure: no I/O, no clock.

open ──complete(ready)──▶ ready ───update_reward──▶ reward-received
  │ ▲
  │ └─ sample
  └────complete(failed)─▶ failed ──update_reward──▶ reward-received
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

from emulator.refusal import Refusal


class Status(StrEnum):
    """Where a trajectory stands."""

    OPEN = "open"  #: created by its first Sample, or registered by a dispatcher; takes turns
    READY = "ready"  #: sealed by CompleteRollout; waits for its rewards
    FAILED = "failed"  #: sealed as failed; a reward is accepted, but it is never eligible for processing
    REWARD_RECEIVED = "reward-received"  #: sealed, and its rewards are there


class Event(StrEnum):
    """What can happen to a trajectory, by the operation that makes it happen."""

    SAMPLE = "Sample"
    COMPLETE_READY = "CompleteRollout(ready)"
    COMPLETE_FAILED = "CompleteRollout(failed)"
    UPDATE_REWARD = "UpdateReward"


class TurnStatus(StrEnum):
    """How a turn ended. Only completed turns count."""

    COMPLETED = "completed"  #: the model answered, and the trajectory was still open
    FAILED = "failed"  #: the model refused, broke off, or could not be reached
    ABORTED = "aborted"  #: the client went away; holds the bytes so far
    DISCARDED = "discarded"  #: the answer ended after the trajectory was sealed


#: Every change of state there is. An event without an entry for the current state is refused.
TRANSITIONS: dict[tuple[Status, Event], Status] = {
    (Status.OPEN, Event.SAMPLE): Status.OPEN,
    (Status.OPEN, Event.COMPLETE_READY): Status.READY,
    (Status.OPEN, Event.COMPLETE_FAILED): Status.FAILED,
    (Status.READY, Event.UPDATE_REWARD): Status.REWARD_RECEIVED,
    # ASSUMED: accepted, since the SDK always sends [0.0] after a failure.
    (Status.FAILED, Event.UPDATE_REWARD): Status.REWARD_RECEIVED,
}

#: The state that an event aims at, for messages about an event that was refused.
TARGETS: dict[Event, Status] = {event: target for (_, event), target in TRANSITIONS.items()}


class TrajectoryError(Refusal):
    """A request does not fit the trajectory, or its job."""


class InvalidTransition(TrajectoryError):
    """The trajectory's state does not allow the event."""

    def __init__(self, trajectory_id: str, status: Status, event: Event) -> None:
        self.trajectory_id, self.status, self.event = trajectory_id, status, event
        super().__init__(str(self))

    def __str__(self) -> str:
        # ASSUMED: the wording; the SDK looks for the phrases "not in valid status" and "Cannot transition trajectory".
        if self.event is Event.SAMPLE:
            return f"Trajectory {self.trajectory_id} is not in valid status for {self.event}: {self.status}"
        target = TARGETS[self.event]
        return f"Cannot transition trajectory {self.trajectory_id} from {self.status} to {target}"


class UnknownTrajectory(TrajectoryError):
    """There is no such trajectory in the job."""

    def __init__(self, job_arn: str, trajectory_id: str) -> None:
        super().__init__(f"Trajectory {trajectory_id} was not found in job {job_arn}")


class UnknownJob(TrajectoryError):
    """Nobody registered such a job, and only registered ones are accepted."""


class InvalidRewards(TrajectoryError):
    """The rewards do not fit the trajectory."""


class TokenReused(TrajectoryError):
    """A client token was sent again with other parameters."""

    def __init__(self, token: str) -> None:
        super().__init__(f"ClientToken {token} was used before with different parameters")


def transition(trajectory_id: str, status: Status, event: Event) -> Status:
    """The state after `event`. Raises InvalidTransition if the state does not allow it."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise InvalidTransition(trajectory_id, status, event) from None


#: The largest reward, with either sign: means and deviations of any number of them can be had.
MOST_REWARD = 1e100


def check_rewards(rewards: Sequence[float], completed_turns: int) -> None:
    """One reward for the whole trajectory, or one a completed turn, each a number that can be added and squared.

    Raises InvalidRewards.
    """
    # ASSUMED: no rewards, and rewards that are no numbers, are refused; so are those beyond 1e100.
    if not rewards:
        raise InvalidRewards("Rewards must hold at least one value")
    if not all(math.isfinite(reward) for reward in rewards):
        raise InvalidRewards("Rewards must be finite numbers, not NaN or Infinity")
    if not all(abs(reward) <= MOST_REWARD for reward in rewards):
        raise InvalidRewards(f"Rewards must be between {-MOST_REWARD:g} and {MOST_REWARD:g}")
    # ASSUMED: AWS documents one reward a turn, and the SDK sends one for all; any other number is refused.
    if len(rewards) not in (1, completed_turns):
        raise InvalidRewards(
            f"Rewards holds {len(rewards)} values; the trajectory has {completed_turns} completed turns: "
            "send one value for the whole trajectory, or one for each turn"
        )


def is_eligible(completion: Status | None, status: Status) -> bool:
    """Whether the trainer may use the trajectory: completed as ready, and its reward received."""
    return completion is Status.READY and status is Status.REWARD_RECEIVED


def is_settled(status: Status) -> bool:
    """Whether its agent is done with a trajectory: it said that it failed, or the rewards are there."""
    return status in (Status.FAILED, Status.REWARD_RECEIVED)
