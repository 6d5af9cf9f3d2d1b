"""JobConfigDocument: checked against the JSON Schemas that lie beside this file, and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from emulator.job import Category
from emulator.job_config.hyperparameters import InvalidHyperParameter, read_hyperparameters

__all__ = ["SCHEMA_VERSIONS", "InvalidDocument", "JobConfig", "MlflowConfig", "read_config", "schema_text"]

#: The versions that there are, for either category.
SCHEMA_VERSIONS = ("1.0.0",)

#: How many errors one refusal names.
MOST_NAMED = 5


class InvalidDocument(Exception):
    """A JobConfigDocument is not valid; the message names what is wrong and where."""


@dataclass(frozen=True, slots=True)
class MlflowConfig:
    """Where the metrics go."""

    resource_arn: str
    experiment_name: str | None
    run_name: str | None


@dataclass(frozen=True, slots=True)
class JobConfig:
    """What a job is told to do."""

    category: Category
    agent_arn: str  #: of an AgentCore runtime or a Lambda function
    agent_qualifier: str | None
    channels: Mapping[str, str]  #: from train, validation or evaluation to an S3 URI, or a data set's ARN
    output_path: str  #: an S3 URI
    base_model_arn: str
    output_group_arn: str | None
    checkpoint_group_arn: str | None
    input_package_arn: str | None
    mlflow: MlflowConfig | None
    hyperparameters: Mapping[str, Any]
    max_runtime: int | None  #: seconds


def schema_text(category: Category, version: str) -> str:
    """The JSON Schema of a category's documents, as JSON."""
    return Path(__file__).with_name(f"{category}-{version}.json").read_text("utf-8")


def read_config(category: Category, version: str, text: str, *, strict: bool) -> JobConfig:
    """Read a document. `strict`: AWS's own ranges of hyperparameters hold, else only what makes sense.

    Raises InvalidDocument.
    """
    try:
        document = json.loads(text)
        json.dumps(document, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written anywhere
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"JobConfigDocument is not valid JSON: {error}") from None
    _check(category, version, document)
    place = "TrainingConfig" if category is Category.TRAINING else "EvaluationConfig"
    part = document[place]
    try:
        hyperparameters = read_hyperparameters(category, part.get("HyperParameters", {}), strict=strict)
    except InvalidHyperParameter as error:
        raise InvalidDocument(f"JobConfigDocument: {place}.HyperParameters: {error}") from None
    agent = document["AgentConfig"]
    packages = document.get("ModelPackageConfig", {})
    _check_packages(packages)
    # OBSERVED: the documentation puts MLflow into OutputDataConfig, the SDK's trainer beside the hyperparameters.
    mlflow = part.get("MlflowConfig") or document["OutputDataConfig"].get("MlflowConfig")
    core = agent.get("BedrockAgentCoreConfig", {})
    return JobConfig(
        category=category,
        agent_arn=core.get("AgentRuntimeArn") or agent["CustomAgentLambdaConfig"]["LambdaArn"],
        agent_qualifier=core.get("Qualifier"),
        channels=_channels(document["InputDataConfig"]),
        output_path=document["OutputDataConfig"]["S3OutputPath"],
        base_model_arn=part["BaseModelArn"],
        output_group_arn=packages.get("OutputModelPackageGroupArn"),
        checkpoint_group_arn=packages.get("IntermediateCheckpointModelPackageGroupArn"),
        input_package_arn=packages.get("InputModelPackageArn"),
        mlflow=mlflow and _mlflow(mlflow),
        hyperparameters=hyperparameters,
        max_runtime=document.get("StoppingCondition", {}).get("MaxRuntimeInSeconds"),
    )


@cache
def _validator(category: Category, version: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(schema_text(category, version)))


def _check(category: Category, version: str, document: object) -> None:
    errors = sorted(_validator(category, version).iter_errors(document), key=lambda error: list(map(str, error.path)))
    if not errors:
        return
    named = [f"{'.'.join(map(str, error.path)) or 'the document'}: {_reason(error)}" for error in errors[:MOST_NAMED]]
    more = f"; and {len(errors) - MOST_NAMED} more" if len(errors) > MOST_NAMED else ""
    # ASSUMED: the wording.
    raise InvalidDocument(f"JobConfigDocument does not fit schema {version} of {category}: {'; '.join(named)}{more}")


def _reason(error: Any) -> str:
    if error.validator in {"minProperties", "maxProperties"}:
        return f"must have exactly one of {', '.join(error.schema['properties'])}"
    text = str(error.message)
    return text if len(text) <= 200 else text[:200] + "…"


def _check_packages(packages: Mapping[str, str]) -> None:
    output = packages.get("OutputModelPackageGroupArn")
    if output is not None and output == packages.get("IntermediateCheckpointModelPackageGroupArn"):
        raise InvalidDocument(
            "JobConfigDocument: ModelPackageConfig: IntermediateCheckpointModelPackageGroupArn must differ from "
            "OutputModelPackageGroupArn"
        )


def _channels(given: list[Mapping[str, Any]]) -> dict[str, str]:
    channels: dict[str, str] = {}
    for channel in given:
        name, source = channel["ChannelName"], channel["DataSource"]
        if name in channels:
            raise InvalidDocument(f"JobConfigDocument: InputDataConfig: channel {name} is given twice")
        channels[name] = (
            source["S3DataSource"]["S3Uri"] if "S3DataSource" in source else source["DatasetSource"]["DatasetArn"]
        )
    if "train" not in channels and "evaluation" not in channels:
        raise InvalidDocument("JobConfigDocument: InputDataConfig: there is no channel train")
    return channels


def _mlflow(given: Mapping[str, str]) -> MlflowConfig:
    return MlflowConfig(given["MlflowResourceArn"], given.get("MlflowExperimentName"), given.get("MlflowRunName"))
