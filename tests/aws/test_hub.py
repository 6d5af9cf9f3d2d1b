"""The public hub: models, their recipes, and the hyperparameters that those name."""

from __future__ import annotations

import json
from typing import Any

from emulator.aws.hub import HUB, MODELS
from emulator.job import Category
from emulator.job_config.hyperparameters import TRAINING, read_hyperparameters
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.aws.conftest import client, refused


def recipe(server: Server, kind: str) -> dict[str, Any]:
    """The hyperparameters of a model's recipe, read as the SDK reads them."""
    found = client(server, "sagemaker").describe_hub_content(
        HubName=HUB, HubContentType="Model", HubContentName=MODELS[0]
    )
    (recipe,) = [each for each in json.loads(found["HubContentDocument"])["RecipeCollection"] if each["Type"] == kind]
    s3, read = client(server, "s3"), {}
    for name in ("SmtjRecipeTemplateS3Uri", "SmtjOverrideParamsS3Uri"):
        bucket, key = recipe[name].removeprefix("s3://").split("/", 1)
        read[name] = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    parameters: dict[str, Any] = json.loads(read["SmtjOverrideParamsS3Uri"])
    return parameters


def test_a_models_recipe_names_every_hyperparameter_of_training(aws: Server) -> None:
    parameters = recipe(aws, "FineTuning")
    assert list(parameters) == list(TRAINING)
    assert parameters["max_steps"] == {"default": 50, "type": "integer", "min": 1}
    assert parameters["clip_low_threshold"]["type"] == "float"
    assert "group_based" in parameters["advantage_method"]["enum"]


def test_the_defaults_of_a_recipe_are_what_a_job_takes_if_nothing_is_given(aws: Server) -> None:
    for kind, category in (("FineTuning", Category.TRAINING), ("Evaluation", Category.EVALUATION)):
        given = {name: str(each["default"]) for name, each in recipe(aws, kind).items()}
        assert read_hyperparameters(category, given, strict=True) == read_hyperparameters(category, {}, strict=True)


def test_the_recipe_of_an_evaluation_has_the_names_that_the_sdks_evaluator_sends(aws: Server) -> None:
    assert {
        "eval_group_size", "sampling_temperature", "top_p", "max_tokens", "pass_k_values", "success_threshold",
    } <= recipe(aws, "Evaluation").keys()  # fmt: skip


def test_with_awss_limits_a_recipe_has_awss_ranges() -> None:
    with running_server(Settings(port=0, durability="memory", limits="aws")) as server:
        parameters = recipe(server, "FineTuning")
    assert (parameters["group_size"]["min"], parameters["group_size"]["max"]) == (2, 32)
    assert parameters["global_batch_size"]["enum"] == list(TRAINING["global_batch_size"].allowed)  # type: ignore[union-attr]


def test_models_are_listed_with_the_keyword_of_their_recipe(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    names: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = sagemaker.list_hub_contents(HubName=HUB, HubContentType="Model", MaxResults=4, **token)
        assert len(page["HubContentSummaries"]) <= 4
        for each in page["HubContentSummaries"]:
            assert "@recipe:finetuning_mtrl_lora" in each["HubContentSearchKeywords"]
            names.append(each["HubContentName"])
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert names == sorted(MODELS)
    found = sagemaker.list_hub_contents(HubName=HUB, HubContentType="Model", NameContains="qwen3-32b")
    assert len(found["HubContentSummaries"]) == 1
    assert sagemaker.list_hub_contents(HubName=HUB, HubContentType="Notebook")["HubContentSummaries"] == []


def test_a_hub_or_model_that_there_is_not_is_not_found(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    about = {"HubName": HUB, "HubContentType": "Model", "HubContentName": MODELS[0]}
    message = refused(
        lambda: sagemaker.describe_hub_content(**about | {"HubContentName": "absent"}), "ResourceNotFound"
    )
    assert MODELS[0] in message
    refused(lambda: sagemaker.describe_hub_content(**about | {"HubName": "other"}), "ResourceNotFound")
    refused(lambda: sagemaker.describe_hub_content(**about, HubContentVersion="9.9.9"), "ResourceNotFound")
    refused(lambda: sagemaker.list_hub_contents(HubName="other", HubContentType="Model"), "ResourceNotFound")
