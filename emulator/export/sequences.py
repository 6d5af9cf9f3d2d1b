"""Turns merged into sequences of tokens. Pure.

A turn's prompt that begins with all tokens of a sequence so far extends it: what the prompt adds is not the model's
(mask 0), what it then sampled is (mask 1). A prompt that begins with none begins a sequence of its own, all of which up
to its answer is mask 0. So each sampled token is trained on once, in the context in which it was sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TurnTokens:
    """A turn in tokens."""

    number: int
    prompt: Sequence[int]
    response: Sequence[int]
    logprobs: Sequence[float | None] | None = None  #: one a token of the response


@dataclass(frozen=True, slots=True)
class Span:
    """Where a turn's sampled tokens stand in its sequence."""

    turn: int
    start: int
    end: int


@dataclass(slots=True)
class TokenSequence:
    """Tokens of one turn, or of several of which each extends the one before."""

    begins: str | None  #: why it does not go on from the turn before; of a trajectory's first, nothing
    ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)  #: 1 for what the model sampled
    logprobs: list[float | None] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


def merge(turns: Sequence[TurnTokens]) -> list[TokenSequence]:
    """The sequences of turns in their order, each in the longest one that its prompt extends token by token."""
    found: list[TokenSequence] = []
    for turn in turns:
        prompt = list(turn.prompt)
        fitting = [each for each in found if prompt[: len(each.ids)] == each.ids]
        sequence = max(fitting, key=lambda each: len(each.ids), default=None)
        if sequence is None:
            before = max(found, key=lambda each: each.spans[-1].turn, default=None)
            sequence = TokenSequence(None if before is None else _difference(turn, prompt, before))
            found.append(sequence)
        _append(sequence, prompt[len(sequence.ids) :], 0, None)
        start = len(sequence.ids)
        _append(sequence, turn.response, 1, turn.logprobs)
        sequence.spans.append(Span(turn.number, start, len(sequence.ids)))
    return found


def _append(sequence: TokenSequence, ids: Sequence[int], mask: int, logprobs: Sequence[float | None] | None) -> None:
    sequence.ids += ids
    sequence.mask += [mask] * len(ids)
    sequence.logprobs += [None] * len(ids) if logprobs is None else logprobs


def _difference(turn: TurnTokens, prompt: list[int], before: TokenSequence) -> str:
    last = before.spans[-1].turn
    pairs = enumerate(zip(prompt, before.ids, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), None)
    if at is None:
        return f"the prompt of turn {turn.number} ends before the tokens of turn {last} do, after {len(prompt)} tokens"
    return f"the prompt of turn {turn.number} does not begin with the tokens of turn {last}: token {at} differs"
