"""What a rollout is to the trainer: what is asked of the agent, what was recorded, and what is made of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from emulator.advantages import total_reward
from emulator.trajectory import Status, TurnStatus, is_eligible


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a dataset."""

    number: int  #: from 0, as it stands in the dataset
    prompt: Any  #: the column `prompt`, or else the first, as it is: a text in most datasets
    instance: Mapping[str, Any]  #: the whole row


@dataclass(frozen=True, slots=True)
class Rollout:
    """One member of a group: the rollouts of one row."""

    row: Row
    member: int

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from every other rollout of its run."""
        return self.row.number, self.member


@dataclass(frozen=True, slots=True)
class TurnTokens:
    """A turn as far as the trainer counts it."""

    status: TurnStatus
    prompt: int  #: tokens; 0 where the model did not count them
    response: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A trajectory as the emulator has it."""

    status: Status
    completion: Status | None
    rewards: tuple[float, ...]
    turns: tuple[TurnTokens, ...]  #: of whatever status

    @property
    def completed_turns(self) -> tuple[TurnTokens, ...]:
        """Those that count."""
        return tuple(turn for turn in self.turns if turn.status is TurnStatus.COMPLETED)


class FailureText(StrEnum):
    """What a real job says of a rollout that failed."""

    NO_SAMPLES = "No sampling requests were received for this rollout"
    AGENT_FAILED = "The agent signaled that the trajectory failed"
    NO_REWARD = "The rollout completed but no reward was received in time"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a rollout, or one attempt at it, came to nothing."""

    text: FailureText
    reason: str  #: what happened here, in words


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory of a rollout."""

    trajectory_id: str
    failure: Failure | None
    seconds: float
    given_up: bool = False  #: sealed by the trainer, as its agent had not sealed it


@dataclass(frozen=True, slots=True)
class RolloutResult:
    """A rollout that is over."""

    row: int
    member: int
    attempts: tuple[Attempt, ...]  #: the last one is what counts
    rewards: tuple[float, ...]  #: as the agent sent them; none of a rollout that failed
    turns: tuple[TurnTokens, ...]  #: the completed ones of the last attempt

    @property
    def trajectory_id(self) -> str:
        """The trajectory that counts."""
        return self.attempts[-1].trajectory_id

    @property
    def failure(self) -> Failure | None:
        """Why it failed, if it did."""
        return self.attempts[-1].failure

    @property
    def reward(self) -> float | None:
        """Its reward: of one a turn, the sum. None if it failed."""
        return None if self.failure else total_reward(self.rewards)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that the model read, over all turns."""
        return sum(turn.prompt for turn in self.turns)

    @property
    def response_tokens(self) -> int:
        """Tokens that the model wrote."""
        return sum(turn.response for turn in self.turns)

    @property
    def seconds(self) -> float:
        """From the first attempt's begin to the last one's end, less the waits in between."""
        return sum(attempt.seconds for attempt in self.attempts)


def failure_of(recorded: Recorded, reason: str, *, given_up: bool) -> Failure | None:
    """Why an attempt that is over failed, or None if its reward counts.

    `reason`: what ended it; `given_up`: sealed by the trainer, not by its agent.
    """
    if recorded.completion is Status.FAILED and not given_up:
        return Failure(FailureText.AGENT_FAILED, f"CompleteRollout(failed) after {_turns(recorded)}")
    if not recorded.turns:
        return Failure(FailureText.NO_SAMPLES, reason)
    if is_eligible(recorded.completion, recorded.status):
        return None
    state = "never sealed" if given_up else "sealed, without a reward"
    return Failure(FailureText.NO_REWARD, f"{reason}; {state}, after {_turns(recorded)}")


def _turns(recorded: Recorded) -> str:
    completed, others = len(recorded.completed_turns), len(recorded.turns) - len(recorded.completed_turns)
    text = "1 turn" if completed == 1 else f"{completed} turns"
    return f"{text} and {others} that did not complete" if others else text
