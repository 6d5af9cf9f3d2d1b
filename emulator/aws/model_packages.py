"""Model package groups by their ARNs, which moto 5.2.5 takes for names; and no group is created twice."""

from __future__ import annotations

import json

from emulator.aws.moto_app import Moto
from emulator.aws.request import Request
from emulator.protocol.errors import ValidationException

_NAME = "ModelPackageGroupName"


def rewrite(moto: Moto, request: Request) -> Request:
    """A request of SageMaker's as moto understands it. Raises ValidationException for a group that is there already."""
    if "ModelPackage" not in request.operation:
        return request
    try:
        given = json.loads(request.body)
        name = given.get(_NAME)
    except (ValueError, AttributeError):
        return request
    if not isinstance(name, str):
        return request
    if request.operation == "CreateModelPackageGroup":
        group = moto.backend("sagemaker", request.region).model_package_groups.get(name)
        if group is not None:
            raise ValidationException(f"Model Package Group already exists: {group.arn}")
    if not name.startswith("arn:"):
        return request
    return request.with_body(json.dumps(given | {_NAME: name.rpartition("/")[2]}).encode())
