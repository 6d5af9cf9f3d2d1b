"""The service's own description of itself, as botocore ships it, reduced to what decoding a request needs.

The file is read directly: importing botocore to do it would cost more start-up time than everything else here.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

SERVICE = "sagemakerjobruntime"
API_VERSION = "2026-02-01"


@dataclass(frozen=True, slots=True, eq=False)  # by identity: it is a key of caches
class Member:
    """One member of an operation's input: where it stands on the wire, and what it must satisfy."""

    name: str  #: on the wire, `JobArn`
    keyword: str  #: in Python, `job_arn`
    type: str  #: string, blob or list
    header: bytes | None  #: in lower case, where the member travels in a header
    is_payload: bool  #: whether the member is the whole body
    required: bool
    minimum: int | None
    maximum: int | None
    pattern: re.Pattern[str] | None
    enum: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OperationModel:
    """One operation: its place on the wire, its input's members, and the names of the errors it may answer with."""

    name: str
    method: str
    path: str
    members: tuple[Member, ...]
    has_payload: bool  #: whether one of them is the whole body
    errors: frozenset[str]

    def only(self, keywords: Container[str]) -> OperationModel:
        """Less the members that nobody here knows, of a botocore that is newer than we are."""
        return replace(self, members=tuple(member for member in self.members if member.keyword in keywords))


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """The service's operations by name, the status of each error by name, and a digest of the whole description."""

    operations: Mapping[str, OperationModel]
    error_statuses: Mapping[str, int]
    digest: str


def snake_case(name: str) -> str:
    """`JobArn` → `job_arn`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@cache
def load_service_model() -> ServiceModel:
    """Read the runtime's service model from the installed botocore.

    Raises RuntimeError if botocore is too old to know the service.
    """
    description = read_description(SERVICE, API_VERSION)
    shapes = description["shapes"]
    operations = {name: _operation(operation, shapes) for name, operation in description["operations"].items()}
    statuses = {name: shape["error"]["httpStatusCode"] for name, shape in shapes.items() if shape.get("exception")}
    return ServiceModel(operations, statuses, digest(description))


def digest(description: Mapping[str, Any]) -> str:
    """SHA-256 of a service description without its prose, so that only a change of substance changes it."""
    text = json.dumps(_without_documentation(description), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_description(service: str, version: str) -> dict[str, Any]:
    """What the installed botocore says of a service. Raises RuntimeError if it does not know it."""
    spec = importlib.util.find_spec("botocore")
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root, "data", service, version, "service-2.json.gz")
        if path.exists():
            description: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
            return description
    raise RuntimeError(f"the installed botocore does not know {service} {version}: pip install 'botocore>=1.43.115'")


def _operation(operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> OperationModel:
    structure = shapes[operation["input"]["shape"]]
    required = set(structure.get("required", ()))
    members = tuple(
        _member(name, reference, shapes, required=name in required, is_payload=name == structure.get("payload"))
        for name, reference in structure["members"].items()
    )
    errors = frozenset(error["shape"] for error in operation.get("errors", ()))
    http = operation["http"]
    has_payload = "payload" in structure
    return OperationModel(operation["name"], http["method"], http["requestUri"], members, has_payload, errors)


def _member(
    name: str, reference: Mapping[str, Any], shapes: Mapping[str, Any], *, required: bool, is_payload: bool
) -> Member:
    shape = shapes[reference["shape"]]
    header = reference["locationName"].lower().encode() if reference.get("location") == "header" else None
    return Member(
        name=name,
        keyword=snake_case(name),
        type=shape["type"],
        header=header,
        is_payload=is_payload,
        required=required,
        minimum=shape.get("min"),
        maximum=shape.get("max"),
        pattern=re.compile(shape["pattern"]) if "pattern" in shape else None,
        enum=tuple(shape.get("enum", ())),
    )


def _without_documentation(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_documentation(value) for key, value in node.items() if key != "documentation"}
    if isinstance(node, list):
        return [_without_documentation(item) for item in node]
    return node
