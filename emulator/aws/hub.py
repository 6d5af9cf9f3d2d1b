"""SageMaker's public hub: the models that there are, and their recipes. moto 5.2.5 has nothing of it.

A model's recipes name objects in S3 that say which hyperparameters there are. They are put there when a model is
described, so that they always say what this server takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from emulator.aws.paging import paged
from emulator.aws.place import Place
from emulator.aws.request import Request
from emulator.job import Category
from emulator.job_config.hyperparameters import EVALUATION, TRAINING, HyperParameter, Number, Numbers
from emulator.job_config.hyperparameters import EVALUATION_ALIASES as ALIASES
from emulator.protocol.errors import ResourceNotFound

HUB = "SageMakerPublicHub"

# ASSUMED: which models can be trained so; the names are of the kind that the hub gives.
MODELS = (
    "huggingface-reasoning-qwen3-06b",
    "huggingface-reasoning-qwen3-4b",
    "huggingface-reasoning-qwen3-8b",
    "huggingface-reasoning-qwen3-14b",
    "huggingface-reasoning-qwen3-32b",
    "huggingface-llm-qwen2-5-7b-instruct",
    "meta-textgeneration-llama-3-1-8b-instruct",
    "meta-textgeneration-llama-3-2-1b-instruct",
    "openai-reasoning-gpt-oss-20b",
    "nova-textgeneration-lite-v2",
    "nova-textgeneration-micro",
)

VERSION = "1.0.0"
SCHEMA_VERSION = "2.3.0"
KEYWORDS = ["@recipe:finetuning_mtrl_lora", "@recipe:evaluation_mtrlevaluation"]

#: 2026-01-01, in microseconds: the catalogue is as old as that.
CREATED_AT = 1_767_225_600_000_000

_TEMPLATE = "run:\n  name: mtrl\n# What a job does, its hyperparameters say; nothing is read from here.\n"


async def describe_hub_content(
    place: Place, *, hub_name: str, hub_content_type: str, hub_content_name: str, hub_content_version: str | None
) -> dict[str, Any]:
    """A model, with its recipes. Raises ResourceNotFound, and what S3 refuses."""
    _check_hub(hub_name)
    is_there = hub_content_type == "Model" and hub_content_name in MODELS
    if not is_there or hub_content_version not in (None, VERSION):
        # ASSUMED: the wording.
        version = f" of version {hub_content_version}" if is_there else ""
        raise ResourceNotFound(
            f"There is no {hub_content_type} {hub_content_name}{version} in {HUB}; there are {', '.join(MODELS)}"
        )
    bucket = f"jumpstart-cache-prod-{place.region}"
    files = {
        "training.yaml": _TEMPLATE.encode(),
        "training.json": _dump(parameters(Category.TRAINING, strict=place.aws_limits)),
        "evaluation.yaml": _TEMPLATE.encode(),
        "evaluation.json": _dump(parameters(Category.EVALUATION, strict=place.aws_limits)),
    }
    await _seed(place, bucket, {f"recipes/mtrl/{name}": content for name, content in files.items()})
    base = f"s3://{bucket}/recipes/mtrl"
    document = {
        "GatedBucket": False,
        "RecipeCollection": [
            {
                "Name": f"{hub_content_name}-mtrl-lora",
                "DisplayName": "Multi-turn reinforcement learning (LoRA)",
                "Type": "FineTuning",
                "CustomizationTechnique": "MTRL",
                "Peft": "LORA",
                "SequenceLength": "32K",
                "SmtjRecipeTemplateS3Uri": f"{base}/training.yaml",
                "SmtjOverrideParamsS3Uri": f"{base}/training.json",
            },
            {
                "Name": f"{hub_content_name}-mtrl-evaluation",
                "DisplayName": "Multi-turn reinforcement learning: evaluation",
                "Type": "Evaluation",
                "EvaluationType": "MTRLEvaluation",
                "SmtjRecipeTemplateS3Uri": f"{base}/evaluation.yaml",
                "SmtjOverrideParamsS3Uri": f"{base}/evaluation.json",
            },
        ],
    }
    return {
        **_summary(place, hub_content_name),
        "hub_name": HUB,
        "hub_arn": f"arn:aws:sagemaker:{place.region}:aws:hub/{HUB}",
        "hub_content_document": json.dumps(document),
    }


async def list_hub_contents(
    place: Place,
    *,
    hub_name: str,
    hub_content_type: str,
    name_contains: str | None,
    max_schema_version: str | None,  # noqa: ARG001  # there is one
    creation_time_before: int | None,
    creation_time_after: int | None,
    sort_by: str | None,  # noqa: ARG001  # all else is the same for each
    sort_order: str | None,
    max_results: int | None,
    next_token: str | None,
) -> dict[str, Any]:
    """The models by name. Raises ResourceNotFound, ValidationException."""
    _check_hub(hub_name)
    question = {"type": hub_content_type, "name": name_contains, "order": sort_order}
    names = sorted(MODELS, reverse=sort_order == "Descending") if hub_content_type == "Model" else []
    wanted = [name for name in names if name_contains is None or name_contains in name]
    if (creation_time_after or 0) >= CREATED_AT or (creation_time_before or CREATED_AT + 1) <= CREATED_AT:
        wanted = []
    page, token = paged(question, wanted, max_results or 100, next_token)
    return {"hub_content_summaries": [_summary(place, name) for name in page], "next_token": token}


def parameters(category: Category, *, strict: bool) -> dict[str, dict[str, Any]]:
    """The hyperparameters of a category as a recipe gives them. `strict`: with AWS's own ranges.

    An evaluation's are named as the SDK's evaluator reads them.
    """
    if category is Category.TRAINING:
        return {name: _specification(each, strict=strict) for name, each in TRAINING.items()}
    names = {ours: sent for sent, ours in ALIASES.items()}
    return {names.get(name, name): _specification(each, strict=strict) for name, each in EVALUATION.items()}


def _specification(each: HyperParameter, *, strict: bool) -> dict[str, Any]:
    if isinstance(each, Numbers):
        return {"default": json.dumps(each.default), "type": "string"}
    if not isinstance(each, Number):
        return {"default": each.default, "type": "string", "enum": list(each.words)}
    found: dict[str, Any] = {"default": each.default, "type": "integer" if each.is_whole else "float"}
    if strict and each.allowed:
        found["enum"] = list(each.allowed)
    limits = {"min": each.low if strict else each.least, "max": each.high if strict else math.inf}
    return found | {name: limit for name, limit in limits.items() if math.isfinite(limit)}


def _check_hub(name: str) -> None:
    if name.rpartition("/")[2] != HUB:
        raise ResourceNotFound(f"There is no hub {name}; there is {HUB}")


def _summary(place: Place, name: str) -> dict[str, Any]:
    return {
        "hub_content_name": name,
        "hub_content_arn": f"arn:aws:sagemaker:{place.region}:aws:hub-content/{HUB}/Model/{name}/{VERSION}",
        "hub_content_version": VERSION,
        "hub_content_type": "Model",
        "document_schema_version": SCHEMA_VERSION,
        "hub_content_display_name": name,
        "hub_content_description": "An entry of the emulator's catalogue: jobs sample from --model, whatever its name",
        "hub_content_search_keywords": KEYWORDS,
        "hub_content_status": "Available",
        "creation_time": CREATED_AT,
    }


async def _seed(place: Place, bucket: str, files: Mapping[str, bytes]) -> None:
    where = f"<LocationConstraint>{place.region}</LocationConstraint>"
    body = (
        b""
        if place.region == "us-east-1"
        else f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>".encode()
    )
    await place.ask(Request.of_ours("s3", place.region, "PUT", f"/{bucket}", body=body))  # it may be there
    for key, content in files.items():
        await place.ask(Request.of_ours("s3", place.region, "PUT", f"/{bucket}/{key}", body=content))


def _dump(document: object) -> bytes:
    return json.dumps(document, indent=2).encode()
