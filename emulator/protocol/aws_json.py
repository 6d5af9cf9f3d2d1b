"""awsJson1.1, the control plane's protocol: `POST /` with the operation in `X-Amz-Target`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from emulator.protocol.answer import Answer
from emulator.protocol.errors import SerializationException
from emulator.protocol.service_model import digest, read_description, snake_case
from emulator.protocol.shapes import decode_shape, encode_shape

SERVICE = "sagemaker"
API_VERSION = "2017-07-24"

#: What `X-Amz-Target` begins with.
TARGET = "SageMaker."

CONTENT_TYPE = "application/x-amz-json-1.1"


@dataclass(frozen=True, slots=True)
class ControlModel:
    """The control plane's description, as far as our operations go."""

    operations: Mapping[str, Mapping[str, Any]]
    shapes: Mapping[str, Any]

    def digest(self, names: tuple[str, ...]) -> str:
        """Of the operations of these names, and all shapes that they use: a change of substance changes it."""
        operations = {name: self.operations[name] for name in names}
        used: dict[str, Any] = {}
        waiting = [
            operation[side]["shape"]
            for operation in operations.values()
            for side in ("input", "output")
            if side in operation
        ]
        waiting += [error["shape"] for operation in operations.values() for error in operation.get("errors", ())]
        while waiting:
            name = waiting.pop()
            if name in used:
                continue
            shape = used[name] = self.shapes[name]
            waiting += [member["shape"] for member in shape.get("members", {}).values()]
            waiting += [shape[part]["shape"] for part in ("member", "key", "value") if part in shape]
        return digest({"operations": operations, "shapes": used})


@cache
def load_control_model() -> ControlModel:
    """Read the control plane's model from the installed botocore; it takes 0.1 s, hence not at the start."""
    description = read_description(SERVICE, API_VERSION)
    return ControlModel(description["operations"], description["shapes"])


def decode(operation: str, _headers: Mapping[bytes, bytes], body: bytes) -> dict[str, Any]:
    """The keyword arguments of an operation. Raises SerializationException, ValidationException."""
    model = load_control_model()
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise SerializationException("The request body is not valid JSON") from None
    return decode_shape(model.shapes, model.operations[operation]["input"]["shape"], document)


def wire_name(operation: str, member: str) -> str:
    """What a member of an operation's input is called on the wire."""
    model = load_control_model()
    members: Mapping[str, Any] = model.shapes[model.operations[operation]["input"]["shape"]]["members"]
    return next(name for name in members if snake_case(name) == member)


def target(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What `X-Amz-Target` says, `SageMaker.CreateJob`; nothing if it is not there."""
    return next((value.decode("latin-1") for name, value in headers if name == b"x-amz-target"), "")


def answer(operation: str, members: Mapping[str, Any]) -> Answer:
    """The answer of an operation, of its output's members."""
    model = load_control_model()
    output = model.operations[operation].get("output")
    document = encode_shape(model.shapes, output["shape"], members) if output else {}
    return Answer(json.dumps(document, separators=(",", ":")).encode(), content_type=CONTENT_TYPE)
