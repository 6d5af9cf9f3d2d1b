"""Of each fault that sealing and rewarding can suffer: what boto3 sees, what is stored, and one effect of a retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from emulator.faults import Fault
from emulator.faults.kinds import KINDS
from tests.clients.aws import runtime_client
from tests.clients.rollouts import Conversation
from tests.conftest import JOB_ARN
from tests.faults.conftest import Rollout
from tests.raw_client import RawClient, check_error

BODY = Conversation().request()

SEALED = ("ready", "ready", None, False)
REWARDED = ("reward-received", "ready", [1.0], True)
OPEN = ("open", None, None, False)


@pytest.fixture(params=["CompleteRollout", "UpdateReward"])
def operation(request: pytest.FixtureRequest, rollout: Rollout) -> str:
    """What the fault strikes, of a rollout that is ready for it."""
    rollout.client.sample(**rollout.key, Body=BODY)
    if request.param == "UpdateReward":
        rollout.client.complete_rollout(**rollout.key)
    return str(request.param)


BEFORE_AND_AFTER = {"CompleteRollout": (OPEN, SEALED), "UpdateReward": (SEALED, REWARDED)}


def call_of(client: Any, rollout: Rollout, operation: str) -> Callable[..., Any]:
    if operation == "CompleteRollout":
        return lambda **given: client.complete_rollout(**rollout.key, **given)
    return lambda **given: client.update_reward(**rollout.key, Rewards=[1.0], **given)


def token_of(rollout: Rollout) -> str:
    """The same token each time; another rollout's, of the same job, is another one."""
    return f"token of {rollout.trajectory_id}"


#: Faults of which boto3 raises something, what, and whether the work was done.
FAILURES: list[tuple[Fault, str, bool]] = [
    *(
        (Fault("error", error=error, operation=("CompleteRollout", "UpdateReward"), times=1), error, False)
        for error in (
            "AccessDeniedException",
            "ConflictException",
            "InternalServiceError",
            "ResourceNotFoundException",
            "ServiceQuotaExceededException",
            "ThrottlingException",
            "ValidationException",
        )
    ),
    (Fault("error", error="InternalServiceError", when="after", times=1), "InternalServiceError", True),
    (Fault("rate-limit", times=1), "ThrottlingException", False),
    (Fault("quota", times=1), "ServiceQuotaExceededException", False),
    (Fault("expired-credentials", times=1), "AccessDeniedException", False),
    (Fault("drop", times=1), "ConnectionClosedError", False),
    (Fault("drop", when="during", times=1), "ConnectionClosedError", True),
    (Fault("drop", when="after", times=1), "ConnectionClosedError", True),
]


def name_of(value: object) -> str | None:
    return " ".join(map(str, value.document().values())) if isinstance(value, Fault) else None


@pytest.mark.parametrize(("fault", "sees", "is_done"), FAILURES, ids=name_of)
def test_a_retry_with_its_client_token_has_one_effect(
    fault: Fault, sees: str, is_done: bool, operation: str, rollout: Rollout
) -> None:
    given = rollout.faults.add(fault)
    before, after = BEFORE_AND_AFTER[operation]
    call = call_of(rollout.client, rollout, operation)
    with pytest.raises(Exception) as failure:  # noqa: PT011 - which one, the table says
        call(ClientToken=token_of(rollout))
    assert type(failure.value).__name__ == sees
    assert rollout.stored().state == (after if is_done else before)
    call(ClientToken=token_of(rollout))
    assert rollout.stored().state == after
    assert given.struck == 1


def test_every_kind_that_sealing_can_suffer_is_tried_here() -> None:
    tried = {fault.kind for fault, _, _ in FAILURES} | {"latency"}
    assert tried == {name for name, kind in KINDS.items() if "CompleteRollout" in kind.operations}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", times=1),
        Fault("drop", when="after", times=1),
        Fault("error", error="InternalServiceError", when="after", times=1),
    ],
    ids=name_of,
)
@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_boto3_retries_by_itself_with_a_token_of_its_own(
    mode: str, fault: Fault, operation: str, rollout: Rollout, pauses: list[float]
) -> None:
    given = rollout.faults.add(fault)
    with runtime_client(rollout.server.url, attempts=2, mode=mode) as patient:
        answer = call_of(patient, rollout, operation)()
    assert answer["ResponseMetadata"]["RetryAttempts"] == len(pauses) == 1
    assert given.struck == 1
    assert rollout.stored().state == BEFORE_AND_AFTER[operation][1]


def test_a_retry_after_a_lost_answer_without_its_token_is_a_conflict_and_changes_nothing(
    operation: str, rollout: Rollout
) -> None:
    rollout.faults.add(Fault("drop", when="after", times=1))
    call = call_of(rollout.client, rollout, operation)
    with pytest.raises(Exception, match="closed before we received a valid response"):
        call()
    with pytest.raises(rollout.client.exceptions.ConflictException, match="Cannot transition trajectory"):
        call()  # with another one
    with RawClient(rollout.server.url, JOB_ARN) as client:
        reply = client.complete(rollout.trajectory_id)
    check_error(reply, 409, "ConflictException")
    assert rollout.stored().state == BEFORE_AND_AFTER[operation][1]


@pytest.mark.parametrize(("when", "is_done"), [("before", False), ("after", True)])
def test_who_does_not_wait_out_a_latency_may_ask_again(
    when: Any, is_done: bool, operation: str, rollout: Rollout
) -> None:
    rollout.faults.add(Fault("latency", seconds=60, when=when, times=1))
    before, after = BEFORE_AND_AFTER[operation]
    with (
        runtime_client(rollout.server.url, read_timeout=1.0) as hasty,
        pytest.raises(Exception, match=r"(?i)read timeout"),
    ):
        call_of(hasty, rollout, operation)(ClientToken=token_of(rollout))
    assert rollout.stored().state == (after if is_done else before)
    call_of(rollout.client, rollout, operation)(ClientToken=token_of(rollout))
    assert rollout.stored().state == after


def test_the_words_for_expired_credentials_fit_their_sort(rollout: Rollout) -> None:
    rollout.faults.add(Fault("expired-credentials"))
    with pytest.raises(rollout.client.exceptions.AccessDeniedException, match="security token included in the request"):
        rollout.client.complete_rollout(**rollout.key)
    key, url = rollout.key, f"{rollout.server.url}/complete-rollout"
    answer = httpx2.post(url, json=key, headers={"Authorization": "Bearer sagemaker-api-key-x"})
    assert answer.status_code == 403
    assert answer.json() == {"Message": "Authentication failed: Please make sure your API Key is valid"}
