"""Merging turns into sequences of tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emulator.export.sequences import Span, TurnTokens, merge

tokens = st.lists(st.integers(0, 3), max_size=6)  # few, so that beginnings often agree by chance
turns = st.lists(st.tuples(tokens, tokens.filter(len)), max_size=6).map(
    lambda pairs: [
        TurnTokens(number, prompt, response, [-float(number)] * len(response))
        for number, (prompt, response) in enumerate(pairs)
    ]
)
#: What each turn adds to the one before, and what is sampled then.
steps = st.lists(st.tuples(tokens, tokens.filter(len)), min_size=1, max_size=6)


def chained(added: list[tuple[list[int], list[int]]]) -> list[TurnTokens]:
    """Turns of which each extends the one before."""
    found, so_far = [], list[int]()
    for number, (observed, sampled) in enumerate(added):
        found.append(TurnTokens(number, so_far + observed, sampled))
        so_far += observed + sampled
    return found


def test_turns_that_extend_one_another_are_one_sequence() -> None:
    (one,) = merge([TurnTokens(0, [1, 2], [3, 4], [-0.5, -1]), TurnTokens(2, [1, 2, 3, 4, 5], [6], [-2])])
    assert one.ids == [1, 2, 3, 4, 5, 6]
    assert one.mask == [0, 0, 1, 1, 0, 1]
    assert one.logprobs == [None, None, -0.5, -1, None, -2]
    assert one.spans == [Span(0, 2, 4), Span(2, 5, 6)]
    assert one.begins is None


def test_a_prompt_that_does_not_begin_with_the_turn_before_begins_a_sequence_and_says_why() -> None:
    first, second = merge([TurnTokens(0, [1, 2], [3]), TurnTokens(1, [1, 2, 9, 5], [6])])
    assert (first.ids, second.ids, second.mask) == ([1, 2, 3], [1, 2, 9, 5, 6], [0, 0, 0, 0, 1])
    assert second.begins == "the prompt of turn 1 does not begin with the tokens of turn 0: token 2 differs"


def test_a_prompt_that_ends_too_early_begins_a_sequence_and_says_why() -> None:
    _, second = merge([TurnTokens(0, [1, 2], [3]), TurnTokens(1, [1, 2], [3])])
    assert second.begins == "the prompt of turn 1 ends before the tokens of turn 0 do, after 2 tokens"


def test_two_conversations_that_alternate_are_two_sequences() -> None:
    first, second = merge(
        [TurnTokens(0, [1], [2]), TurnTokens(1, [7], [8]), TurnTokens(2, [1, 2, 3], [4]), TurnTokens(3, [7, 8], [9])]
    )
    assert [span.turn for span in first.spans] == [0, 2]
    assert [span.turn for span in second.spans] == [1, 3]


@given(steps)
def test_a_chain_is_one_sequence_whatever_its_tokens(added: list[tuple[list[int], list[int]]]) -> None:
    (one,) = merge(chained(added))
    assert one.ids == [token for observed, sampled in added for token in observed + sampled]
    assert one.mask == [bit for o, sampled in added for bit in [0] * len(o) + [1] * len(sampled)]


@given(turns)
def test_every_sampled_token_stands_once_in_the_context_it_was_sampled_in(given: list[TurnTokens]) -> None:
    found = merge(given)
    placed = [(span, sequence) for sequence in found for span in sequence.spans]
    assert sorted(span.turn for span, _ in placed) == [turn.number for turn in given]
    for span, sequence in placed:
        turn = given[span.turn]
        assert sequence.ids[: span.start] == turn.prompt
        assert sequence.ids[span.start : span.end] == turn.response
        assert sequence.logprobs[span.start : span.end] == turn.logprobs
    for sequence in found:
        assert len(sequence.ids) == len(sequence.mask) == len(sequence.logprobs)
        sampled = {at for span in sequence.spans for at in range(span.start, span.end)}
        assert [at in sampled for at in range(len(sequence.ids))] == [bit == 1 for bit in sequence.mask]
        assert [value is None for value in sequence.logprobs] == [bit == 0 for bit in sequence.mask]


@given(turns)
def test_a_sequence_begins_only_where_no_other_is_extended(given: list[TurnTokens]) -> None:
    for sequence in merge(given):
        first = sequence.spans[0]
        before = [turn for turn in given if turn.number < first.turn]
        ends = [each.ids for each in merge(before)]
        assert not any(given[first.turn].prompt[: len(ids)] == ids for ids in ends)
        assert (sequence.begins is None) == (not before)
