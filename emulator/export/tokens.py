"""Format `tokens`: token ids, loss mask, logprobs and advantages; a row a sequence.

Turns that extend one another token by token are one sequence (see `sequences`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.advantages import METHODS, Scored
from emulator.completion import Choice
from emulator.export.columns import MISSING, TRAJECTORY, trajectory_columns
from emulator.export.conversations import Spoken
from emulator.export.rollouts import Rollout
from emulator.export.sequences import TokenSequence, TurnTokens, merge
from emulator.export.shape import Field, Many, Shape
from emulator.export.tokenizing import NoTokens, Tokenizer
from emulator.store.queries import TrajectoryRecord

SCHEMA = "tokens/1"

_TURN: Shape = {
    "number": Field("integer", "The turn."),
    "start": Field("integer", "Where its sampled tokens begin in `input_ids`."),
    "end": Field("integer", "Where they end: the first that is none of them."),
    "advantage": Field("number", "Of each of its tokens, by `advantage_method`; null if it has none.", nullable=True),
    "source": Field(
        "text",
        "`answer`: the ids are those that the model sampled. `tokenize`: at least some are those of the turn's text, "
        "which may be split otherwise than it was sampled, and lacks the token that ended it.",
    ),
    "finish_reason": Field("text", "Why the model stopped.", nullable=True),
}

SHAPE: Shape = {
    "input_ids": Field(Many("integer"), "The sequence; null if there are no token ids.", nullable=True),
    "loss_mask": Field(Many("integer"), "1 for each token that the model sampled in it, else 0.", nullable=True),
    "logprobs": Field(
        Many("number", holes=True),
        "The log probability that each token was sampled with; null for tokens that were not, and where the answer has "
        "none.",
        nullable=True,
    ),
    **TRAJECTORY,
    "model": Field("text", "The model's name in its answers.", nullable=True),
    "sequence": Field("integer", "Which of the trajectory's sequences this is, from 0."),
    "sequences": Field("integer", "How many there are. More than one: not all of its turns extend one another."),
    "begins": Field("text", "Why it does not go on from the turn before; null for the first.", nullable=True),
    "turns": Field(Many(_TURN), "Its turns."),
    "advantage_method": Field("text", "How the advantages were computed."),
    "missing": MISSING,
}

#: How vLLM writes a token's text when it is asked to `return_tokens_as_token_ids`.
_TOKEN_ID = re.compile(r"token_id:([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class _Taken:
    """A turn whose tokens are known."""

    tokens: TurnTokens
    source: str
    choice: Choice


class TokenRows:
    """Makes the rows."""

    def __init__(self, method: str = "group_based", tokenizer: Tokenizer | None = None) -> None:
        self._method = method
        self._tokenizer = tokenizer
        self._group: Sequence[TrajectoryRecord] | None = None
        self._found: dict[int, list[float]] = {}

    def __call__(self, rollout: Rollout) -> Iterator[dict[str, Any]]:
        """The rows of a trajectory; one without tokens, that says why, if it has no token ids."""
        completed = rollout.completed()
        if not completed:
            rollout.tally.left_out["no completed turn"] += 1
            return
        missing: dict[str, str] = {}
        taken = self._taken(completed, missing)
        found: list[TokenSequence | None] = [*merge([each.tokens for each in taken.values()])]
        advantages = self._advantages(rollout, completed, missing)
        for number, sequence in enumerate(found or [None]):
            turns = [
                {
                    "number": span.turn,
                    "start": span.start,
                    "end": span.end,
                    "advantage": advantages.get(span.turn),
                    "source": taken[span.turn].source,
                    "finish_reason": taken[span.turn].choice.finish_reason,
                }
                for span in (sequence.spans if sequence else ())
            ]
            has_logprobs = sequence is not None and any(value is not None for value in sequence.logprobs)
            row = trajectory_columns(SCHEMA, rollout) | {
                "input_ids": sequence.ids if sequence else None,
                "loss_mask": sequence.mask if sequence else None,
                "logprobs": sequence.logprobs if sequence and has_logprobs else None,
                "model": completed[-1].read.model,
                "sequence": number,
                "sequences": len(found),
                "begins": sequence.begins if sequence else None,
                "turns": turns,
                "advantage_method": self._method,
                "missing": missing,
            }
            yield {name: row[name] for name in SHAPE}

    def _taken(self, completed: Sequence[Spoken], missing: dict[str, str]) -> dict[int, _Taken]:
        """The turns whose tokens can be had, by number."""
        prompts: dict[int, tuple[list[int], str]] = {}
        for spoken in completed:
            try:
                prompts[spoken.turn.number] = self._prompt(spoken)
            except NoTokens as error:
                missing[f"turn {spoken.turn.number}"] = str(error)
        taken = {}
        for at, spoken in enumerate(completed):
            number = spoken.turn.number
            if number not in prompts:
                continue
            later = [prompts[each.turn.number][0] for each in completed[at + 1 :] if each.turn.number in prompts]
            try:
                taken[number] = self._answered(spoken, *prompts[number], later, missing)
            except NoTokens as error:
                missing[f"turn {number}"] = str(error)
        return taken

    def _prompt(self, spoken: Spoken) -> tuple[list[int], str]:
        read = spoken.read
        if not read.choices:
            raise NoTokens(f"its answer could not be read: {read.problem or read.error}")
        if isinstance(read.prompt, list) and len(read.prompt) > 1 and not isinstance(read.prompt[0], int):
            raise NoTokens(f"it has {len(read.prompt)} prompts, which are no turns of one rollout")
        if read.prompt_token_ids is not None:
            return read.prompt_token_ids, "answer"
        if self._tokenizer is None:
            raise NoTokens("its answer has no prompt_token_ids, and no tokenizer was given")
        return self._tokenizer.prompt_ids(read), "tokenize"

    def _answered(
        self, spoken: Spoken, prompt: list[int], source: str, later: Sequence[list[int]], missing: dict[str, str]
    ) -> _Taken:
        """What the model said, of several choices the one that a later prompt goes on with. Raises NoTokens."""
        number, choices = spoken.turn.number, spoken.read.choices
        answers = [self._choice(spoken, choice) for choice in (choices if later else choices[:1])]
        whole = [prompt + ids for ids, _ in answers]
        went_on = [at for at, ids in enumerate(whole) if any(each[: len(ids)] == ids for each in later)]
        at = went_on[0] if went_on else 0
        if len(choices) > 1 and not went_on:
            reason = f"no turn goes on from one of its {len(choices)} choices, so the first is taken"
            missing[f"choice of turn {number}"] = reason
        ids, of_response = answers[at]
        logprobs = choices[at].logprobs
        problem = None
        if logprobs is None:
            problem = "its answer has none"
        elif of_response != "answer":
            problem = "they are of sampled tokens, whose ids the answer does not have"
        elif len(logprobs) != len(ids):
            problem = f"there are {len(logprobs)}, for {len(ids)} tokens"
        if problem:
            missing[f"logprobs of turn {number}"] = problem
        values = None if problem or logprobs is None else [_finite(entry.logprob) for entry in logprobs]
        if values and None in values:
            missing[f"logprobs of turn {number}"] = f"{values.count(None)} of {len(values)} are no finite numbers"
        both = "answer" if source == of_response == "answer" else "tokenize"
        return _Taken(TurnTokens(number, prompt, ids, values), both, choices[at])

    def _choice(self, spoken: Spoken, choice: Choice) -> tuple[list[int], str]:
        if choice.token_ids is not None:
            return choice.token_ids, "answer"
        named = [_TOKEN_ID.fullmatch(entry.token) for entry in choice.logprobs or ()]
        if named and all(named):
            return [int(match[1]) for match in named if match], "answer"
        if self._tokenizer is None:
            raise NoTokens("its answer has no token_ids, and no tokenizer was given")
        return self._tokenizer.response_ids(spoken.read, choice), "tokenize"

    def _advantages(self, rollout: Rollout, completed: Sequence[Spoken], missing: dict[str, str]) -> dict[int, float]:
        """The advantage of each completed turn by its number; whatever else is selected, all of its group counts."""
        record = rollout.record
        if not record.eligible:
            missing["advantage"] = "it is not eligible for processing: not completed as ready, or without a reward"
            return {}
        if not rollout.companions and self._method != "monte_carlo":
            missing["advantage"] = "it has no group to be compared with"
            return {}
        found = self._of_group(rollout.companions or [record]).get(record.id)
        if found is None or len(found) != len(completed):
            missing["advantage"] = "it changed while it was exported"
            return {}
        return {spoken.turn.number: value for spoken, value in zip(completed, found, strict=True)}

    def _of_group(self, group: Sequence[TrajectoryRecord]) -> dict[int, list[float]]:
        """The advantages of a group's turns by trajectory, computed once for all of it that is looked up together."""
        if self._group is not group:
            (found,) = METHODS[self._method]([[_scored(each) for each in group]])
            self._group, self._found = group, {each.id: turns for each, turns in zip(group, found, strict=True)}
        return self._found


def _finite(logprob: float | None) -> float | None:
    return logprob if logprob is not None and math.isfinite(logprob) else None


def _scored(record: TrajectoryRecord) -> Scored:
    return Scored(record.rewards or [], [1] * record.turns)
