"""Pipelines of steps, as far as evaluations need them. Pure: no I/O, no clock. Times are microseconds since 1970, UTC.

Of a definition (version 2020-12-01): steps of type `Job` and `Lineage`, their `DependsOn`, and in their arguments
`{"Get": "Execution.…"}`, `{"Get": "Parameters.…"}`, `{"Get": "Steps.NAME.…"}` and
`{"Std:Join": {"On": …, "Values": […]}}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from emulator.job import JobError


class InvalidDefinition(ValueError):
    """A pipeline's definition cannot be run."""


class InvalidReference(ValueError):
    """A reference names nothing."""


class PipelineError(JobError):
    """A request does not fit a pipeline execution."""


class ExecutionStatus(StrEnum):
    """Where an execution stands."""

    EXECUTING = "Executing"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


class StepStatus(StrEnum):
    """Where a step stands."""

    EXECUTING = "Executing"
    STOPPED = "Stopped"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


#: In which an execution does something.
UNDER_WAY = frozenset({ExecutionStatus.EXECUTING, ExecutionStatus.STOPPING})


@dataclass(frozen=True, slots=True)
class Step:
    """A step that has begun."""

    name: str
    status: StepStatus
    started_at: int
    ended_at: int | None = None
    failure_reason: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)  #: as it is answered


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a pipeline, with the definition that it began with."""

    arn: str
    pipeline: str  #: its name
    token: str  #: of the request that began it
    definition: str
    parameters: Mapping[str, str]
    created_at: int
    modified_at: int
    status: ExecutionStatus = ExecutionStatus.EXECUTING
    display_name: str | None = None
    description: str | None = None
    failure_reason: str | None = None
    steps: tuple[Step, ...] = ()  #: in the order in which they began

    @property
    def id(self) -> str:
        """The end of its ARN."""
        return self.arn.rpartition("/")[2]

    @property
    def pipeline_arn(self) -> str:
        """The ARN of its pipeline."""
        return self.arn.partition("/execution/")[0]

    def step(self, name: str) -> Step | None:
        """The step of that name, if it has begun."""
        return next((step for step in self.steps if step.name == name), None)

    def with_step(self, step: Step, now: int) -> Execution:
        """With this step in the place of the one of its name, or after all others."""
        steps = tuple(step if each.name == step.name else each for each in self.steps)
        return replace(self, steps=steps if self.step(step.name) else (*steps, step), modified_at=now)


@dataclass(frozen=True, slots=True)
class StepDefinition:
    """A step as the definition has it."""

    name: str
    kind: str
    arguments: Any
    needs: frozenset[str]  #: the steps that it waits for


def read_definition(text: str, parameters: Mapping[str, str]) -> tuple[list[StepDefinition], dict[str, Any]]:
    """The steps of a definition, and its parameters' values. Raises InvalidDefinition."""
    try:
        document = json.loads(text)
        steps = [_step(each) for each in document["Steps"]]
        declared = {each["Name"]: each.get("DefaultValue") for each in document.get("Parameters", [])}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidDefinition(f"The pipeline's definition is not valid: {type(error).__name__}: {error}") from None
    names = {step.name for step in steps}
    if len(names) < len(steps):
        raise InvalidDefinition("The pipeline's definition has two steps of one name")
    for step in steps:
        if unknown := step.needs - names:
            raise InvalidDefinition(f"Step {step.name} needs {', '.join(sorted(unknown))}, which the pipeline has not")
    try:
        TopologicalSorter({step.name: step.needs for step in steps}).prepare()
    except CycleError as error:
        raise InvalidDefinition(f"Steps wait for one another: {', '.join(error.args[1])}") from None
    if strange := parameters.keys() - declared.keys():
        raise InvalidDefinition(f"The pipeline has no parameters {', '.join(sorted(strange))}")
    values = declared | dict(parameters)
    if missing := [name for name, value in values.items() if value is None]:
        raise InvalidDefinition(f"Parameters without a value: {', '.join(missing)}")
    return steps, values


def resolve(value: Any, get: Callable[[str], Any]) -> Any:
    """Arguments with what their references stand for. Raises InvalidReference, and what `get` raises."""
    match value:
        case {"Get": str(path), **more} if not more:
            return get(path)
        case {"Std:Join": {"On": str(glue), "Values": list(parts)}, **more} if not more:
            return glue.join(str(resolve(part, get)) for part in parts)
        case dict():
            return {key: resolve(each, get) for key, each in value.items()}
        case list():
            return [resolve(each, get) for each in value]
    return value


def follow(document: Any, path: str, whole: str) -> Any:
    """What stands at a path with dots in a document; JSON in a text is read. Raises InvalidReference."""
    for name in path.split("."):
        if isinstance(document, str):
            try:
                document = json.loads(document)
            except ValueError:
                document = None
        if not isinstance(document, dict) or name not in document:
            raise InvalidReference(f"{whole} names nothing")
        document = document[name]
    return document


def _step(document: Mapping[str, Any]) -> StepDefinition:
    arguments = document.get("Arguments", {})
    needs = {each.partition(".")[0] for each in document.get("DependsOn", [])}
    needs |= {path.split(".")[1] for path in _references(arguments) if path.startswith("Steps.")}
    name, kind = document["Name"], document["Type"]
    if not isinstance(name, str) or not isinstance(kind, str):
        raise TypeError("Name and Type of a step are texts")
    return StepDefinition(name, kind, arguments, frozenset(needs))


def _references(value: Any) -> Iterator[str]:
    match value:
        case {"Get": str(path), **more} if not more:
            yield path
        case dict():
            for each in value.values():
                yield from _references(each)
        case list():
            for each in value:
                yield from _references(each)
