"""Every modelled error of every operation, by way of boto3's own retries: which are tried again, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.faults import Fault
from emulator.protocol.service_model import load_service_model
from tests.clients.aws import runtime_client
from tests.clients.rollouts import Conversation
from tests.faults.conftest import Rollout

BODY = Conversation().request()

#: What boto3 tries altogether without being told, by retry mode.
ATTEMPTS = {"legacy": 5, "standard": 3, "adaptive": 3}
RETRIED = {"ThrottlingException", "InternalServiceError"}

CASES = [
    (operation, error) for operation, model in load_service_model().operations.items() for error in sorted(model.errors)
]


def call_of(client: Any, rollout: Rollout, operation: str) -> Callable[[], Any]:
    return {
        "Sample": lambda: client.sample(**rollout.key, Body=BODY),
        "SampleWithResponseStream": lambda: client.sample_with_response_stream(**rollout.key, Body=BODY),
        "CompleteRollout": lambda: client.complete_rollout(**rollout.key),
        "UpdateReward": lambda: client.update_reward(**rollout.key, Rewards=[1.0]),
    }[operation]


@pytest.fixture(params=ATTEMPTS)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(mode: str, rollout: Rollout, pauses: list[float]) -> Iterator[Any]:
    with runtime_client(rollout.server.url, attempts=None, mode=mode) as client:
        yield client


@pytest.mark.parametrize(("operation", "error"), CASES)
def test_an_error_that_stays_is_raised_after_as_many_attempts_as_its_mode_has(
    operation: str, error: str, mode: str, client: Any, rollout: Rollout, pauses: list[float]
) -> None:
    given = rollout.faults.add(Fault("error", error=error, operation=operation, message=f"the words of {error}"))
    with pytest.raises(ClientError) as refusal:
        call_of(client, rollout, operation)()

    attempts = ATTEMPTS[mode] if error in RETRIED else 1
    assert given.struck == attempts
    assert len(pauses) == attempts - 1
    assert type(refusal.value) is getattr(client.exceptions, error)
    told = refusal.value.response
    assert told["Error"] == {"Code": error, "Message": f"the words of {error}"}
    assert told["ResponseMetadata"]["HTTPStatusCode"] == load_service_model().error_statuses[error]
    assert told["ResponseMetadata"]["RetryAttempts"] == attempts - 1
    assert ("MaxAttemptsReached" in told["ResponseMetadata"]) == (error in RETRIED)
    assert rollout.turns() == []


@pytest.mark.parametrize("error", sorted(RETRIED))
def test_an_error_that_passes_is_not_even_noticed(
    error: str, mode: str, client: Any, rollout: Rollout, pauses: list[float]
) -> None:
    times = ATTEMPTS[mode] - 1
    for operation in ("Sample", "CompleteRollout", "UpdateReward"):
        rollout.faults.add(Fault("error", error=error, operation=operation, times=times))
        answer = call_of(client, rollout, operation)()
        assert answer["ResponseMetadata"]["RetryAttempts"] == times
    assert len(pauses) == 3 * times
    assert [str(turn.status) for turn in rollout.turns()] == ["completed"]
    assert rollout.stored().state == ("reward-received", "ready", [1.0], True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_that_is_dropped_is_tried_again_in_every_mode(
    when: Any, mode: str, client: Any, rollout: Rollout, pauses: list[float]
) -> None:
    given = rollout.faults.add(Fault("drop", when=when))
    with pytest.raises(Exception, match="closed before we received a valid response"):
        client.sample(**rollout.key, Body=BODY)
    assert given.struck == ATTEMPTS[mode]
    assert rollout.eventual_turns(0 if when == "before" else ATTEMPTS[mode]) == (
        [] if when == "before" else ["completed"] * ATTEMPTS[mode]
    )


def test_what_breaks_in_the_middle_of_a_stream_is_never_tried_again(
    client: Any, rollout: Rollout, pauses: list[float]
) -> None:
    given = rollout.faults.add(Fault("cut"))
    request = Conversation().request(stream=True)
    with pytest.raises(Exception, match="IncompleteRead"):
        client.sample_with_response_stream(**rollout.key, Body=request)["Body"].read()
    assert (given.struck, pauses) == (1, [])
    assert rollout.eventual_turns(1) == ["failed"]


def test_what_the_model_server_does_wrong_is_tried_again_turn_by_turn(
    mode: str, client: Any, rollout: Rollout, pauses: list[float]
) -> None:
    rollout.faults.add(Fault("model-down", times=2))
    client.sample(**rollout.key, Body=BODY)
    assert rollout.eventual_turns(3) == ["failed", "failed", "completed"]
    client.complete_rollout(**rollout.key)
    client.update_reward(**rollout.key, Rewards=[1.0])
    assert rollout.stored().state == ("reward-received", "ready", [1.0], True)
