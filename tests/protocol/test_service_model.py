"""botocore is the oracle: what we read of its model is what botocore itself reads."""

from __future__ import annotations

import inspect
import json
import typing

import pytest
from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ServiceModel

from emulator.operations import OPERATIONS
from emulator.protocol import errors
from emulator.protocol.service_model import API_VERSION, SERVICE, digest, load_service_model, snake_case

#: Of the service model that this code was written against. When this changes, read what changed, then pin the new one.
PINNED = "bcd220a48f7400e7451d955748537f6c23bb073e29b61b5eed53741986f3be53"

DESCRIPTION = Loader().load_service_model(SERVICE, "service-2", API_VERSION)
BOTOCORE = ServiceModel(DESCRIPTION, SERVICE)


def test_the_service_model_is_the_one_that_this_code_was_written_against() -> None:
    assert load_service_model().digest == digest(DESCRIPTION) == PINNED, (
        "botocore ships another model of the service: read the difference, follow it, pin the new digest"
    )


def test_a_change_of_prose_does_not_change_the_digest() -> None:
    changed = json.loads(json.dumps(DESCRIPTION).replace("Marks a rollout as complete", "Ends a rollout"))
    assert changed != DESCRIPTION
    assert digest(changed) == PINNED


def test_no_other_version_of_the_api_has_appeared() -> None:
    assert Loader().list_api_versions(SERVICE, "service-2") == [API_VERSION]


@pytest.mark.parametrize("name", BOTOCORE.operation_names)
def test_operations_are_read_as_botocore_reads_them(name: str) -> None:
    ours, theirs = load_service_model().operations[name], BOTOCORE.operation_model(name)
    assert (ours.method, ours.path) == (theirs.http["method"], theirs.http["requestUri"])
    assert ours.errors == {shape.name for shape in theirs.error_shapes}
    shape = theirs.input_shape
    assert [member.name for member in ours.members] == list(shape.members)
    for member in ours.members:
        model = shape.members[member.name]
        assert member.keyword == xform_name(member.name)
        assert member.type == model.type_name
        assert member.required == (member.name in shape.required_members)
        assert member.is_payload == (shape.serialization.get("payload") == member.name)
        assert (member.minimum, member.maximum) == (model.metadata.get("min"), model.metadata.get("max"))
        assert (member.pattern.pattern if member.pattern else None) == model.metadata.get("pattern")
        assert list(member.enum) == (model.enum if model.type_name == "string" else [])
        in_header = model.serialization.get("location") == "header"
        assert member.header == (model.serialization["name"].lower().encode() if in_header else None)


@pytest.mark.parametrize("name", BOTOCORE.operation_names)
def test_every_operation_of_the_service_is_served_at_its_path(name: str) -> None:
    (operation,) = (row for row in OPERATIONS if row.name == name)
    theirs = BOTOCORE.operation_model(name)
    assert (operation.method, operation.paths) == (theirs.http["method"], (theirs.http["requestUri"],))
    assert operation.model == name


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_operations_keywords_are_the_members_of_its_shape(operation: typing.Any) -> None:
    parameters = list(inspect.signature(operation.function).parameters.values())[1:]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters)
    members = load_service_model().operations[operation.model].members if operation.model else ()
    assert [parameter.name for parameter in parameters] == [member.keyword for member in members]


@pytest.mark.parametrize("name", load_service_model().error_statuses)
def test_every_error_of_the_model_has_a_class_with_its_status(name: str) -> None:
    error = getattr(errors, name)
    assert error.status == load_service_model().error_statuses[name]
    assert error("x").code == name


def test_names_become_keywords() -> None:
    assert snake_case("X") == "x"
    assert snake_case("TrajectoryId") == "trajectory_id"


def test_messages_keep_to_the_models_limit() -> None:
    limit = BOTOCORE.shape_for("FailureReason").metadata["max"]
    assert limit == errors.MAX_MESSAGE
    assert len(errors.ValidationException("x" * 5000).message) == limit
    assert errors.ValidationException("x" * limit).message == "x" * limit
