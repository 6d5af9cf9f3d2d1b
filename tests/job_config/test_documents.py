"""Documents are read, or refused with the place of what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from emulator.job import Category
from emulator.job_config import SCHEMA_VERSIONS, InvalidDocument, JobConfig, MlflowConfig, read_config, schema_text
from tests.job_config import EVALUATION, TRAINING


def read(document: object, category: Category = Category.TRAINING, *, strict: bool = False) -> JobConfig:
    text = document if isinstance(document, str) else json.dumps(document)
    return read_config(category, "1.0.0", text, strict=strict)


@pytest.mark.parametrize("category", Category)
@pytest.mark.parametrize("version", SCHEMA_VERSIONS)
def test_the_schemas_are_schemas(category: Category, version: str) -> None:
    schema = json.loads(schema_text(category, version))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert len(schema_text(category, version)) < 262_144, "DescribeJobSchemaVersion cannot answer with more"


@pytest.mark.parametrize("text", ["{", "[" * 100_000, json.dumps(TRAINING | {"AgentConfig": "\ud800"})])
def test_what_is_no_json_of_unicode_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument, match="JobConfigDocument is not valid JSON"):
        read(text)


def test_a_training_document_is_read() -> None:
    config = read(TRAINING)
    assert config.agent_arn == "arn:aws:lambda:us-west-2:123456789012:function:agent"
    assert config.channels == {"train": "s3://bucket/train.jsonl", "validation": "s3://bucket/val/"}
    assert config.output_path == "s3://bucket/out"
    assert config.mlflow == MlflowConfig("arn:aws:sagemaker:us-west-2:123456789012:mlflow-app/app-1", "e", None)
    assert (config.hyperparameters["max_steps"], config.hyperparameters["group_size"]) == (6, 8)
    assert (config.agent_qualifier, config.max_runtime) == (None, None)


def test_an_evaluation_document_is_read_with_the_names_that_the_sdk_sends() -> None:
    config = read(EVALUATION, Category.EVALUATION)
    assert config.agent_arn.endswith("runtime/agent-0123456789")
    assert (config.agent_qualifier, config.max_runtime) == ("DEFAULT", 3600)
    assert config.mlflow == MlflowConfig(
        "arn:aws:sagemaker:us-west-2:123456789012:mlflow-app/app-1", None, "base-model-eval"
    )
    asked = {name: config.hyperparameters[name] for name in ("eval_group_size", "temperature", "sampling_top_p")}
    assert asked == {"eval_group_size": 2, "temperature": 0.5, "sampling_top_p": 0.9}
    assert config.hyperparameters["sampling_max_tokens"] == 64
    assert config.hyperparameters["pass_k_values"] == (1, 2)


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        part: Any = document
        for name in path[:-1]:
            part = part[name]
        del part[path[-1]]

    return change


def with_(value: object, *path: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        part: Any = document
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value

    return change


def changed(document: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    other = copy.deepcopy(document)
    change(other)
    return other


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("AgentConfig"), "the document: 'AgentConfig' is a required property"),
        (with_({}, "AgentConfig"), "AgentConfig: must have exactly one of BedrockAgentCoreConfig"),
        (with_("x", "AgentConfig", "CustomAgentLambdaConfig", "LambdaArn"), "AgentConfig.CustomAgentLambdaConfig.Lam"),
        (with_([], "InputDataConfig"), "InputDataConfig: "),
        (with_("test", "InputDataConfig", 0, "ChannelName"), "InputDataConfig.0.ChannelName: 'test' is not one of"),
        (with_("validation", "InputDataConfig", 0, "ChannelName"), "channel validation is given twice"),
        (with_("bucket/x", "InputDataConfig", 0, "DataSource", "S3DataSource", "S3Uri"), "S3Uri: 'bucket/x' does not"),
        (with_(1, "TrainingConfig", "HyperParameters", "max_steps"), "HyperParameters.max_steps: 1 is not of type"),
        (with_({"a": "b"}, "TrainingConfig", "HyperParameters", "lora"), "HyperParameters.lora: {'a': 'b'} is not of"),
        (with_("no", "TrainingConfig", "HyperParameters", "max_steps"), "max_steps: 'no' is not a whole number"),
        (with_("0", "TrainingConfig", "HyperParameters", "max_steps"), "max_steps: 0 is less than 1"),
        (
            with_("10001", "TrainingConfig", "HyperParameters", "rollout_max_concurrency"),
            "rollout_max_concurrency: 10001 is beyond 10000",
        ),
        (with_("1", "TrainingConfig", "HyperParameters", "steps"), "steps: there is no such hyperparameter"),
        (with_("nan", "TrainingConfig", "HyperParameters", "temperature"), "temperature: 'nan' is not a number"),
        (with_("grpo", "TrainingConfig", "HyperParameters", "advantage_method"), "'grpo' is none of monte_carlo"),
        (with_("[1, 0]", "TrainingConfig", "HyperParameters", "pass_k_values"), "is not a JSON list of whole numbers"),
        (with_(1, "Extra"), "Additional properties are not allowed"),
        (
            with_(
                TRAINING["ModelPackageConfig"]["OutputModelPackageGroupArn"],
                "ModelPackageConfig",
                "IntermediateCheckpointModelPackageGroupArn",
            ),
            "must differ",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change: Callable[[dict[str, Any]], None], said: str) -> None:
    document = copy.deepcopy(TRAINING)
    change(document)
    with pytest.raises(InvalidDocument) as refusal:
        read(document)
    assert said in str(refusal.value)


@pytest.mark.parametrize("text", ["1e3", " 5", "5 ", "\uff15", "\u0663", "1_0", "5.0", "0x10", "NaN", "", "9" * 2500])
def test_whole_numbers_are_digits_and_not_all_that_python_takes_for_them(text: str) -> None:
    change = with_(text, "TrainingConfig", "HyperParameters", "max_steps")
    with pytest.raises(
        InvalidDocument, match=r"JobConfigDocument: TrainingConfig\.HyperParameters: max_steps: "
    ) as error:
        read(changed(TRAINING, change))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("text", [" .5", "\uff0e\uff15", "1_0", "inf", "-Infinity", "1e400", "", "."])
def test_numbers_are_finite_and_written_as_json_or_python_write_them(text: str) -> None:
    with pytest.raises(InvalidDocument, match="success_threshold: "):
        read(changed(TRAINING, with_(text, "TrainingConfig", "HyperParameters", "success_threshold")))


@pytest.mark.parametrize(("text", "number"), [("4e-05", 4e-5), ("1", 1), ("-.5", -0.5), ("+2.", 2), ("1E2", 100)])
def test_numbers_in_any_usual_spelling_are_read(text: str, number: float) -> None:
    document = changed(TRAINING, with_(text, "TrainingConfig", "HyperParameters", "success_threshold"))
    assert read(document).hyperparameters["success_threshold"] == number


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument):
        read(text)


def test_a_validation_channel_alone_trains_nothing() -> None:
    document = copy.deepcopy(TRAINING)
    del document["InputDataConfig"][0]
    with pytest.raises(InvalidDocument, match="there is no channel train"):
        read(document)


def test_a_laptops_job_may_be_smaller_than_aws_allows() -> None:
    small = copy.deepcopy(TRAINING)
    small["TrainingConfig"]["HyperParameters"] = {"global_batch_size": "1", "group_size": "1", "rollout_timeout": "0.5"}
    assert read(small).hyperparameters["global_batch_size"] == 1
    with pytest.raises(
        InvalidDocument, match=r"global_batch_size: 1 is none of .*group_size: 1 is not between 2 and 32"
    ):
        read(small, strict=True)


def test_the_defaults_are_within_aws_s_own_limits() -> None:
    read(TRAINING, strict=True)
    read(EVALUATION, Category.EVALUATION, strict=True)
