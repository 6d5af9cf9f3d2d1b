"""The state machine alone: every state and every event."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.trajectory import (
    TRANSITIONS,
    Event,
    InvalidRewards,
    InvalidTransition,
    Status,
    TrajectoryError,
    check_rewards,
    is_eligible,
    transition,
)

#: The contract, written down a second time: what each state does with each event. None: it is refused.
CONTRACT: dict[Status, dict[Event, Status | None]] = {
    Status.OPEN: {
        Event.SAMPLE: Status.OPEN,
        Event.COMPLETE_READY: Status.READY,
        Event.COMPLETE_FAILED: Status.FAILED,
        Event.UPDATE_REWARD: None,
    },
    Status.READY: {
        Event.SAMPLE: None,
        Event.COMPLETE_READY: None,
        Event.COMPLETE_FAILED: None,
        Event.UPDATE_REWARD: Status.REWARD_RECEIVED,
    },
    Status.FAILED: {
        Event.SAMPLE: None,
        Event.COMPLETE_READY: None,
        Event.COMPLETE_FAILED: None,
        Event.UPDATE_REWARD: Status.REWARD_RECEIVED,
    },
    Status.REWARD_RECEIVED: {
        Event.SAMPLE: None,
        Event.COMPLETE_READY: None,
        Event.COMPLETE_FAILED: None,
        Event.UPDATE_REWARD: None,
    },
}


@pytest.mark.parametrize(("status", "event"), list(product(Status, Event)))
def test_every_state_does_with_every_event_what_the_contract_says(status: Status, event: Event) -> None:
    expected = CONTRACT[status][event]
    if expected is not None:
        assert transition("t-1", status, event) is expected
        return
    with pytest.raises(InvalidTransition) as caught:
        transition("t-1", status, event)
    assert (caught.value.trajectory_id, caught.value.status, caught.value.event) == ("t-1", status, event)
    # The phrases by which the SDK sees that a trajectory was already processed.
    phrase = "not in valid status" if event is Event.SAMPLE else "Cannot transition trajectory"
    assert phrase in str(caught.value)
    assert "t-1" in str(caught.value)
    assert str(status) in str(caught.value)


@pytest.mark.parametrize(
    ("status", "event", "target"),
    [
        (Status.OPEN, Event.UPDATE_REWARD, Status.REWARD_RECEIVED),
        (Status.READY, Event.COMPLETE_FAILED, Status.FAILED),
        (Status.FAILED, Event.COMPLETE_READY, Status.READY),
        (Status.REWARD_RECEIVED, Event.COMPLETE_READY, Status.READY),
    ],
)
def test_a_refused_transition_says_from_where_to_where(status: Status, event: Event, target: Status) -> None:
    with pytest.raises(InvalidTransition, match=f"from {status} to {target}$"):
        transition("t-1", status, event)


def test_a_sealed_trajectory_never_opens_again() -> None:
    for (status, _event), target in TRANSITIONS.items():
        assert target is not Status.OPEN or status is Status.OPEN


@given(st.lists(st.sampled_from(Event), max_size=12))
def test_whatever_happens_a_trajectory_is_sealed_at_most_once_and_rewarded_at_most_once(events: list[Event]) -> None:
    status, accepted = Status.OPEN, []
    for event in events:
        try:
            status = transition("t", status, event)
        except TrajectoryError:
            continue
        accepted.append(event)
    seals = [index for index, event in enumerate(accepted) if event in (Event.COMPLETE_READY, Event.COMPLETE_FAILED)]
    rewards = [index for index, event in enumerate(accepted) if event is Event.UPDATE_REWARD]
    assert len(seals) <= 1
    assert len(rewards) <= len(seals)
    if seals:
        assert Event.SAMPLE not in accepted[seals[0] :]
        assert all(index > seals[0] for index in rewards)


FINITE = st.floats(-1e100, 1e100)


@given(FINITE, st.integers(0, 50))
def test_one_reward_fits_every_number_of_turns(reward: float, turns: int) -> None:
    check_rewards([reward], turns)


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_one_reward_a_completed_turn_fits(rewards: list[float]) -> None:
    check_rewards(rewards, len(rewards))


@given(st.lists(FINITE, max_size=20), st.integers(0, 20))
def test_any_other_number_of_rewards_is_refused_and_both_numbers_are_named(rewards: list[float], turns: int) -> None:
    if rewards and len(rewards) in (1, turns):
        return
    with pytest.raises(InvalidRewards) as caught:
        check_rewards(rewards, turns)
    if rewards:
        assert f"{len(rewards)} values" in str(caught.value)
        assert f"{turns} completed turns" in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_reward_that_is_no_finite_number_is_refused_wherever_it_stands(bad: float, place: int) -> None:
    rewards = [0.5, 0.5, 0.5]
    rewards[place] = bad
    with pytest.raises(InvalidRewards, match="finite"):
        check_rewards(rewards, 3)


@pytest.mark.parametrize("bad", [1.1e100, -1e308])
def test_a_reward_that_no_mean_could_be_had_of_is_refused(bad: float) -> None:
    with pytest.raises(InvalidRewards, match=r"Rewards must be between -1e\+100 and 1e\+100"):
        check_rewards([0.5, bad], 2)


@pytest.mark.parametrize(("completion", "status"), list(product([None, Status.READY, Status.FAILED], Status)))
def test_only_what_was_completed_ready_and_rewarded_is_eligible(completion: Status | None, status: Status) -> None:
    expected = (completion, status) == (Status.READY, Status.REWARD_RECEIVED)
    assert is_eligible(completion, status) is expected
