"""A fault that cannot be is refused where it is given, with what it could be."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.faults import Fault, InvalidFault, fault_of
from emulator.faults.kinds import KINDS, SAMPLING, SERVICE_OPERATIONS
from emulator.operations import OPERATIONS
from emulator.protocol import errors
from emulator.protocol.service_model import load_service_model

SERVICE = load_service_model()


@pytest.mark.parametrize(
    ("document", "reason", "option"),
    [
        ("rate-limit", "a fault is an object with a kind", None),
        ({}, "a fault needs a kind; there are error, rate-limit", None),
        ({"kind": 3}, "a fault needs a kind", None),
        ({"kind": "flood"}, "'flood' is no kind of fault; there are error, rate-limit", "kind"),
        ({"kind": "drop", "tiems": 2}, "there is no option 'tiems'; there are kind, operation", "tiems"),
        ({"kind": "drop", "operation": "Smaple"}, "drop does not fit 'Smaple', but Sample, ", "operation"),
        ({"kind": "cut", "operation": "UpdateReward"}, "cut does not fit 'UpdateReward', but Sample, ", "operation"),
        ({"kind": "drop", "operation": []}, "operation: () is not the name of an operation", "operation"),
        ({"kind": "error"}, "error needs error", "kind"),
        ({"kind": "error", "error": "Oops"}, "Sample models no 'Oops'; it models AccessDeniedException, ", "error"),
        ({"kind": "error", "error": "ConflictException"}, "Sample models no 'ConflictException'", "error"),
        ({"kind": "error", "error": "SerializationException"}, "Sample models no 'SerializationException'", "error"),
        ({"kind": "quota", "error": "ConflictException"}, "quota has no option 'error'; it has message", "error"),
        ({"kind": "model-down", "seconds": 1}, "model-down has no option 'seconds'; it has none of its own", "seconds"),
        ({"kind": "latency"}, "latency needs seconds", "kind"),
        ({"kind": "latency", "seconds": -1}, "seconds: -1 is not a number of seconds, or a range", "seconds"),
        ({"kind": "latency", "seconds": [2, 1]}, "seconds: (2, 1) is not", "seconds"),
        ({"kind": "latency", "seconds": "1"}, "seconds: '1' is not", "seconds"),
        ({"kind": "latency", "seconds": float("nan")}, "seconds: nan is not", "seconds"),
        ({"kind": "latency", "seconds": 1, "when": "during"}, "when: 'during' is none of before, after", "when"),
        ({"kind": "corrupt", "how": "badly"}, "how: 'badly' is none of json, bytes", "how"),
        ({"kind": "cut", "after_events": 1, "after_bytes": 1}, "give this or after_events", "after_bytes"),
        ({"kind": "cut", "after_events": -1}, "after_events: -1 is not a whole number from 0 on", "after_events"),
        ({"kind": "drop", "after_events": 1}, "after_events and after_bytes go with when: during", "kind"),
        ({"kind": "model-error", "status": 200}, "status: 200 is not a status of an error: 300 to 599", "status"),
        ({"kind": "rate-limit", "retry_after": -1}, "retry_after: -1 is not a number of seconds", "retry_after"),
        ({"kind": "drop", "share": 0}, "share: 0 is not a number above 0, and at most 1", "share"),
        ({"kind": "drop", "share": 1.5}, "share: 1.5 is not", "share"),
        ({"kind": "drop", "call": 0}, "call: 0 is not a number from 1 on, or a list of them", "call"),
        ({"kind": "drop", "call": [1, "2"]}, "call: (1, '2') is not", "call"),
        ({"kind": "drop", "times": 0}, "times: 0 is not a whole number from 1 on", "times"),
        ({"kind": "drop", "counted": "each"}, "counted: 'each' is not trajectory or all", "counted"),
        ({"kind": "drop", "seed": "s"}, "seed: 's' is not a whole number", "seed"),
        ({"kind": "drop", "job": 1}, "job: 1 is not a text", "job"),
        ({"kind": "drop", "trajectory": []}, "trajectory: [] is not a text", "trajectory"),
    ],
    ids=str,
)
def test_a_wrong_fault_is_refused_with_the_reason(document: Any, reason: str, option: str | None) -> None:
    with pytest.raises(InvalidFault) as refusal:
        fault_of(document)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.option == option


@pytest.mark.parametrize("operation", SERVICE_OPERATIONS)
def test_every_error_that_an_operation_models_can_be_given_and_no_other(operation: str) -> None:
    modelled = SERVICE.operations[SERVICE_OPERATIONS[operation]].errors
    for name in SERVICE.error_statuses:
        if name in modelled:
            assert issubclass(getattr(errors, name), errors.AWSError)
            Fault("error", error=name, operation=operation)
        else:
            with pytest.raises(InvalidFault):
                Fault("error", error=name, operation=operation)


def test_the_operations_that_faults_know_are_those_that_the_emulator_has() -> None:
    assert {each.name: each.model for each in OPERATIONS if each.model} == SERVICE_OPERATIONS


def test_only_samples_ask_the_model_server() -> None:
    assert {kind.operations for kind in KINDS.values() if kind.of_model} <= {SAMPLING, SAMPLING[:3]}


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "rate-limit", "retry_after": 2},
        {"kind": "error", "error": "ConflictException", "operation": ["CompleteRollout", "UpdateReward"]},
        {"kind": "latency", "seconds": [0.1, 0.5], "share": 0.1, "seed": 7, "job": "arn:*", "trajectory": "t-[0-9]"},
        {"kind": "drop", "when": "during", "after_bytes": 0, "call": [1, 3], "counted": "all", "times": 2},
    ],
)
def test_a_fault_is_the_same_when_it_has_been_json(document: dict[str, Any]) -> None:
    fault = fault_of(document)
    assert fault.document() == document
    assert fault_of(fault.document()) == fault
