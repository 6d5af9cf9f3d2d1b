"""Of each fault that a sample can suffer: what boto3 sees, what is stored, and what comes of sending it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.faults import Fault, fault_of
from emulator.faults.answers import BROKEN_ARGUMENTS, GARBAGE, UNKNOWN_TOOL
from emulator.faults.kinds import KINDS
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.aws import runtime_client
from tests.clients.rollouts import Conversation, scripted_answer
from tests.conftest import JOB_ARN
from tests.faults.conftest import Rollout
from tests.model_servers import ClientLeft, model_server
from tests.model_servers import Exchange as ModelExchange
from tests.rig import emulator_before
from tests.stored import eventually

WHOLE, STREAM = Conversation().request(), Conversation().request(stream=True)

#: Whether it is a stream, by operation.
OPERATIONS = {"Sample": False, "SampleWithResponseStream": True}


def ask(client: Any, rollout: Rollout, operation: str) -> bytes:
    """Take a turn; its bytes."""
    if OPERATIONS[operation]:
        answer = client.sample_with_response_stream(**rollout.key, Body=STREAM)
    else:
        answer = client.sample(**rollout.key, Body=WHOLE)
    body: bytes = answer["Body"].read()
    return body


def right_answer(operation: str) -> bytes:
    return scripted_answer(STREAM if OPERATIONS[operation] else WHOLE)


@dataclass(frozen=True)
class Suffered:
    """A fault that has a sample fail."""

    fault: Fault
    sees: str  #: the exception that boto3 raises
    says: str  #: in its text
    stored: tuple[str, ...] = ()  #: the statuses of the turns
    of: tuple[str, ...] = tuple(OPERATIONS)


#: Seconds that a client waits which does not wait: enough for a request to arrive.
HASTY = 1.0

TIMED_OUT = "(?i)timed out|timeout"

NEVER = "InternalServiceError"
FAILURES = [
    *(
        Suffered(Fault("error", error=error, message="in these words"), error, "in these words")
        for error in (
            "AccessDeniedException",
            "InternalServiceError",
            "ResourceNotFoundException",
            "ServiceQuotaExceededException",
            "ThrottlingException",
            "ValidationException",
        )
    ),
    Suffered(Fault("error", error="InternalServiceError", when="after"), NEVER, "internal error", ("completed",)),
    Suffered(Fault("rate-limit"), "ThrottlingException", "Rate exceeded"),
    Suffered(Fault("quota"), "ServiceQuotaExceededException", "exceeds a quota"),
    Suffered(
        Fault("expired-credentials"), "AccessDeniedException", "The security token included in the request is exp"
    ),
    Suffered(Fault("drop"), "ConnectionClosedError", "closed before we received a valid response"),
    Suffered(Fault("drop", when="after"), "ConnectionClosedError", "closed before we received", ("completed",)),
    Suffered(Fault("drop", when="during"), "ConnectionClosedError", "closed before", ("completed",), of=("Sample",)),
    *(
        Suffered(
            fault_of({"kind": "drop", "when": "during", **where}),
            "ResponseStreamingError",
            "IncompleteRead",
            ("aborted",),
            of=("SampleWithResponseStream",),
        )
        for where in ({}, {"after_events": 3}, {"after_bytes": 10}, {"after_events": 0}, {"after_bytes": 0})
    ),
    Suffered(Fault("model-down"), NEVER, "Model server: Connection refused", ("failed",)),
    Suffered(Fault("model-timeout"), NEVER, "No answer from the model server within 0.2 s", ("failed",)),
    Suffered(Fault("model-error"), NEVER, "The model server answered with status 503", ("failed",)),
    Suffered(Fault("model-error", status=429), "ThrottlingException", "answered with status 429", ("failed",)),
    Suffered(Fault("model-error", status=404, message="gone"), "ValidationException", "gone", ("failed",)),
    Suffered(Fault("context-overflow"), "ValidationException", "maximum context length is 4096 tokens", ("failed",)),
    *(
        Suffered(fault, sees, says, ("failed",), of=(operation,))
        for operation, sees in (("Sample", NEVER), ("SampleWithResponseStream", "ResponseStreamingError"))
        for fault, says in (
            (Fault("cut"), "onnection ended" if operation == "Sample" else "IncompleteRead"),
            (Fault("cut", after_bytes=20), "after 20 bytes" if operation == "Sample" else "IncompleteRead(20 bytes"),
            (Fault("stall"), "Nothing more of an answer" if operation == "Sample" else "IncompleteRead"),
            (Fault("slow", seconds=9), "Nothing more of an answer" if operation == "Sample" else "IncompleteRead(0"),
        )
    ),
    Suffered(Fault("slow", first=9), NEVER, "No answer from the model server within 0.2 s", ("failed",)),
]


@pytest.mark.parametrize(
    ("suffered", "operation"),
    [(each, operation) for each in FAILURES for operation in each.of],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.fault.document().values())),
)
def test_what_boto3_sees_and_what_is_stored_and_that_a_second_try_succeeds(
    suffered: Suffered, operation: str, rollout: Rollout
) -> None:
    given = rollout.faults.add(_once(suffered.fault))
    with pytest.raises(Exception) as failure:  # noqa: PT011 - which one, the table says
        ask(rollout.client, rollout, operation)
    assert type(failure.value).__name__ == suffered.sees
    assert suffered.says in str(failure.value)
    assert rollout.eventual_turns(len(suffered.stored)) == list(suffered.stored)

    assert ask(rollout.client, rollout, operation) == right_answer(operation)
    assert given.struck == 1
    assert rollout.eventual_turns(1 + len(suffered.stored)) == [*suffered.stored, "completed"]

    rollout.client.complete_rollout(**rollout.key)
    rollout.client.update_reward(**rollout.key, Rewards=[1.0] * (1 + suffered.stored.count("completed")))
    assert rollout.stored().state[0] == "reward-received"


def _once(fault: Fault) -> Fault:
    return Fault(**{**fault.document(), "times": 1})


def test_no_fault_leaves_a_turn_behind_that_never_ends(emulator: Server, rollout: Rollout) -> None:
    for suffered in FAILURES:
        for operation in suffered.of:
            rollout.faults.add(_once(suffered.fault))
            with pytest.raises(Exception):  # noqa: B017, PT011 - the test above says which
                ask(rollout.client, rollout, operation)
    eventually(lambda: emulator.app.metrics.in_flight == 0, "the end of all turns")


def test_every_kind_that_a_sample_can_suffer_is_tried_here() -> None:
    unbroken = {"latency", "truncate", "corrupt", "tool-call"}  # which have tests of their own
    assert {each.fault.kind for each in FAILURES} | unbroken == set(KINDS)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["rate-limit", "model-error"])
def test_a_rate_limit_says_when_to_come_again(kind: str, operation: str, rollout: Rollout) -> None:
    status = 429 if kind == "model-error" else None
    rollout.faults.add(Fault(kind, retry_after=2.5, times=1, status=status))
    with pytest.raises(ClientError) as refusal:
        ask(rollout.client, rollout, operation)
    assert refusal.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "2.5"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_latency_that_the_client_waits_for_changes_nothing(when: Any, operation: str, rollout: Rollout) -> None:
    given = rollout.faults.add(Fault("latency", seconds=(0.001, 0.01), when=when))
    assert ask(rollout.client, rollout, operation) == right_answer(operation)
    assert given.struck == 1
    assert rollout.eventual_turns(1) == ["completed"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("when", "stored"), [("before", []), ("after", ["completed"])])
def test_latency_that_the_client_does_not_wait_for_is_a_call_that_it_left(
    when: Any, stored: list[str], operation: str, rollout: Rollout
) -> None:
    rollout.faults.add(Fault("latency", seconds=60, when=when, times=1))
    with runtime_client(rollout.server.url, read_timeout=HASTY) as hasty, pytest.raises(Exception, match=TIMED_OUT):
        ask(hasty, rollout, operation)
    assert rollout.eventual_turns(len(stored)) == stored
    assert ask(rollout.client, rollout, operation) == right_answer(operation)
    assert rollout.eventual_turns(len(stored) + 1) == [*stored, "completed"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_stall_that_ends_is_an_answer_that_took_longer(operation: str, rollout: Rollout) -> None:
    rollout.faults.add(Fault("stall", seconds=0.01))
    assert ask(rollout.client, rollout, operation) == right_answer(operation)
    assert rollout.eventual_turns(1) == ["completed"]


def test_who_leaves_a_stalled_answer_has_a_turn_that_was_aborted(database: Path) -> None:
    with (
        running_server(Settings(port=0, database=str(database))) as server,
        runtime_client(server.url, read_timeout=HASTY) as hasty,
    ):
        server.app.faults.add(Fault("stall"))
        for operation in OPERATIONS:
            rollout = Rollout(server, hasty, {"JobArn": JOB_ARN, "TrajectoryId": operation})
            with pytest.raises(Exception, match=TIMED_OUT):
                ask(hasty, rollout, operation)
            assert rollout.eventual_turns(1) == ["aborted"]
            (turn,) = rollout.turns()
            assert turn.response
            assert right_answer(operation).startswith(turn.response)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_slow_events_are_the_same_events(operation: str, rollout: Rollout) -> None:
    rollout.faults.add(Fault("slow", seconds=(0, 0.001), first=0.01))
    assert ask(rollout.client, rollout, operation) == right_answer(operation)
    assert rollout.eventual_turns(1) == ["completed"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_several_faults_that_slow_an_answer_come_on_top_of_another_and_of_each_other(
    operation: str, rollout: Rollout
) -> None:
    given = [rollout.faults.add(Fault("slow", first=0.001)), rollout.faults.add(Fault("slow", seconds=0.001))]
    assert ask(rollout.client, rollout, operation) == right_answer(operation)
    given.append(rollout.faults.add(Fault("context-overflow", times=1)))
    with pytest.raises(rollout.client.exceptions.ValidationException, match="maximum context length"):
        ask(rollout.client, rollout, operation)
    assert [each.struck for each in given] == [2, 2, 1]
    assert rollout.eventual_turns(2) == ["completed", "failed"]


def assert_stored_as_seen(rollout: Rollout, seen: bytes) -> None:
    assert rollout.eventual_turns(1) == ["completed"]
    assert rollout.turns()[0].response == seen


@pytest.mark.parametrize("where", [{}, {"after_events": 2}, {"after_bytes": 700}], ids=str)
def test_a_truncated_stream_ends_as_if_it_were_whole(where: dict[str, int], rollout: Rollout) -> None:
    rollout.faults.add(fault_of({"kind": "truncate", **where}))
    seen = ask(rollout.client, rollout, "SampleWithResponseStream")
    whole = right_answer("SampleWithResponseStream")
    assert whole.startswith(seen)
    assert b"[DONE]" not in seen
    if "after_bytes" in where:
        assert len(seen) == 700
    else:
        assert seen.count(b"\n\n") == where.get("after_events", 1)
    assert_stored_as_seen(rollout, seen)


def test_a_truncated_answer_is_half_of_it(rollout: Rollout) -> None:
    rollout.faults.add(Fault("truncate"))
    seen = ask(rollout.client, rollout, "Sample")
    whole = right_answer("Sample")
    assert seen == whole[: len(whole) // 2]
    assert_stored_as_seen(rollout, seen)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_corrupt_answer_is_no_json(operation: str, rollout: Rollout) -> None:
    rollout.faults.add(Fault("corrupt"))
    seen = ask(rollout.client, rollout, operation)
    documents = [event.removeprefix(b"data: ") for event in seen.split(b"\n\n") if event] if b"\n\n" in seen else [seen]
    with pytest.raises(json.JSONDecodeError):
        json.loads(documents[-1 if operation == "Sample" else 1])
    if operation == "SampleWithResponseStream":
        assert documents[-1] == b"[DONE]"
        assert json.loads(documents[0])
        assert json.loads(documents[2])
    assert_stored_as_seen(rollout, seen)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_corrupt_answer_may_be_no_text_either(operation: str, rollout: Rollout) -> None:
    rollout.faults.add(Fault("corrupt", how="bytes"))
    seen = ask(rollout.client, rollout, operation)
    assert GARBAGE in seen
    with pytest.raises(UnicodeDecodeError):
        seen.decode()
    assert_stored_as_seen(rollout, seen)


@pytest.mark.parametrize("how", ["arguments", "name"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_broken_tool_call_has_broken_arguments_or_a_tool_that_was_not_offered(
    operation: str, how: str, rollout: Rollout
) -> None:
    rollout.faults.add(Fault("tool-call", how=how))
    seen = ask(rollout.client, rollout, operation)
    if operation == "Sample":
        (call,) = json.loads(seen)["choices"][0]["message"]["tool_calls"]
        name, arguments = call["function"]["name"], call["function"]["arguments"]
    else:
        events = [json.loads(event[6:]) for event in seen.split(b"\n\n") if event.startswith(b"data: {")]
        deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
        parts = [part["function"] for delta in deltas for part in delta.get("tool_calls", ())]
        name = "".join(part.get("name", "") for part in parts)
        arguments = "".join(part["arguments"] for part in parts)
    if how == "name":
        assert (name, arguments) == (UNKNOWN_TOOL, "{}")
    else:
        assert (name, arguments) == ("calculator", BROKEN_ARGUMENTS)
    assert_stored_as_seen(rollout, seen)


def test_a_sample_whose_answer_was_lost_is_there_and_the_retry_is_another_turn(rollout: Rollout) -> None:
    # Sample has no client token, by which the service could know that it is the same again.
    rollout.faults.add(Fault("drop", when="after", times=1))
    with runtime_client(rollout.server.url, attempts=3) as patient:
        answer = patient.sample(**rollout.key, Body=WHOLE)
        assert answer["ResponseMetadata"]["RetryAttempts"] == 1
        seen = answer["Body"].read()
    assert rollout.eventual_turns(2) == ["completed", "completed"]
    assert [turn.response for turn in rollout.turns()] == [seen, seen]
    assert [turn.number for turn in rollout.turns()] == [0, 1]


def test_a_stream_that_is_dropped_on_its_way_keeps_what_had_left(rollout: Rollout) -> None:
    rollout.faults.add(Fault("drop", when="during", after_events=2, times=1))
    body = rollout.client.sample_with_response_stream(**rollout.key, Body=STREAM)["Body"]
    pieces: list[bytes] = []
    with pytest.raises(Exception, match="IncompleteRead"):
        pieces.extend(iter(lambda: body.read(1), b""))
    seen = b"".join(pieces)
    assert seen.count(b"\n\n") == 2
    eventually(lambda: bool(rollout.turns()), "the turn")
    (turn,) = rollout.turns()
    assert turn.response.startswith(seen)
    assert right_answer("SampleWithResponseStream").startswith(turn.response)


def test_a_cut_lets_go_of_the_real_model_servers_answer(database: Path) -> None:
    async def endless(exchange: ModelExchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: {}\n\n"] * 3)
        await exchange.until_client_left()
        raise ClientLeft

    with (
        model_server(endless) as model,
        emulator_before(model, database) as server,
        runtime_client(server.url) as client,
    ):
        rollout = Rollout(server, client, {"JobArn": JOB_ARN, "TrajectoryId": "cut"})
        rollout.faults.add(Fault("cut", after_events=2))
        with pytest.raises(Exception, match="IncompleteRead"):
            ask(client, rollout, "SampleWithResponseStream")
        model.wait_until_left()
        assert rollout.eventual_turns(1) == ["failed"]
        assert rollout.turns()[0].response == b"data: {}\n\n" * 2


def test_faults_in_place_of_the_model_do_not_ask_it(database: Path) -> None:
    async def answer(exchange: ModelExchange) -> None:
        await exchange.answer(b"{}")

    with (
        model_server(answer) as model,
        emulator_before(model, database) as server,
        runtime_client(server.url) as client,
    ):
        rollout = Rollout(server, client, {"JobArn": JOB_ARN, "TrajectoryId": "instead"})
        for kind in ("model-down", "model-error", "model-timeout", "context-overflow"):
            rollout.faults.add(Fault(kind, times=1))
            with pytest.raises(ClientError):
                ask(client, rollout, "Sample")
        rollout.faults.add(Fault("tool-call", times=1))
        ask(client, rollout, "Sample")
        assert model.requests == []
        assert ask(client, rollout, "Sample") == b"{}"
        assert len(model.requests) == 1
