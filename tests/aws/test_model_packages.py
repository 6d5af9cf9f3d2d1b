"""Model package groups and packages."""

from __future__ import annotations

from emulator.server import Server
from tests.aws.conftest import client, refused


def test_a_group_is_found_by_name_and_by_arn(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    arn = sagemaker.create_model_package_group(ModelPackageGroupName="by-arn")["ModelPackageGroupArn"]
    for name in ("by-arn", arn):
        found = sagemaker.describe_model_package_group(ModelPackageGroupName=name)
        assert (found["ModelPackageGroupArn"], found["ModelPackageGroupName"]) == (arn, "by-arn")
    package = sagemaker.create_model_package(ModelPackageGroupName=arn, ModelPackageDescription="d")["ModelPackageArn"]
    (listed,) = sagemaker.list_model_packages(ModelPackageGroupName=arn)["ModelPackageSummaryList"]
    assert listed["ModelPackageArn"] == package


def test_a_group_that_is_there_is_not_created_again(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    sagemaker.create_model_package_group(ModelPackageGroupName="once")
    refused(lambda: sagemaker.create_model_package_group(ModelPackageGroupName="once"), "ValidationException")
    refused(lambda: sagemaker.describe_model_package_group(ModelPackageGroupName="none"), "ValidationException")
