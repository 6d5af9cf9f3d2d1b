"""The tokens of a step's rollouts: what would be trained on, and how likely each was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from emulator.completion import read_completion
from emulator.export.sequences import TurnTokens, merge
from emulator.store import queries
from emulator.store.queries import TurnRecord
from emulator.trajectory import TurnStatus


@dataclass(slots=True)
class StepTokens:
    """Of the rollouts of a step that have a reward."""

    actions: list[int] = field(default_factory=list)  #: tokens that the model sampled, a number a sequence
    observations: list[int] = field(default_factory=list)  #: all the others, a number a sequence
    logprobs: list[float] = field(default_factory=list)  #: of sampled tokens, where the answers have them

    @property
    def sequences(self) -> int:
        """What would be trained on: turns that extend one another are one."""
        return len(self.actions)

    @property
    def total(self) -> int:
        """All tokens of all sequences."""
        return sum(self.actions) + sum(self.observations)


def step_tokens(connection: Connection, job_arn: str, trajectory_ids: Sequence[str]) -> StepTokens:
    """Count the tokens of trajectories of a job."""
    found = StepTokens()
    for trajectory_id in trajectory_ids:
        for record in queries.find_trajectories(connection, trajectory_id, job_arn):
            _count(
                found, [turn for turn in queries.turns_of(connection, record) if turn.status is TurnStatus.COMPLETED]
            )
    return found


def _count(found: StepTokens, turns: Sequence[TurnRecord]) -> None:
    known: list[TurnTokens] = []
    counted: list[tuple[int, int]] = []
    for turn in turns:
        read = read_completion(turn.request, turn.response, turn.content_type)
        choice = read.choices[0] if read.choices else None
        if choice is not None:
            found.logprobs += [entry.logprob for entry in choice.logprobs or () if entry.logprob is not None]
        if choice is not None and choice.prompt_token_ids is not None and choice.token_ids is not None:
            known.append(TurnTokens(turn.number, choice.prompt_token_ids, choice.token_ids))
        usage = read.usage
        counted.append(((usage and usage.prompt_tokens) or 0, (usage and usage.completion_tokens) or 0))
    if len(known) == len(turns):
        for sequence in merge(known):
            actions = sum(sequence.mask)
            found.actions.append(actions)
            found.observations.append(len(sequence.ids) - actions)
    else:  # which turns extend which cannot be known: each counts by itself
        for prompt, response in counted:
            found.actions.append(response)
            found.observations.append(prompt)
