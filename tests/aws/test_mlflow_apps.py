"""MLflow apps."""

from __future__ import annotations

from emulator.server import Server
from tests.aws.conftest import client, refused

ROLE = "arn:aws:iam::123456789012:role/r"
DEFAULT = "arn:aws:sagemaker:us-west-2:123456789012:mlflow-app/app-local"


def test_there_is_a_default_app_which_a_trainer_finds(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    (app,) = sagemaker.list_mlflow_apps(AccountDefaultStatus="ENABLED")["Summaries"]
    assert (app["Arn"], app["Status"]) == (DEFAULT, "Created")
    assert tuple(map(int, app["MlflowVersion"].split("."))) >= (3, 10)
    assert sagemaker.describe_mlflow_app(Arn=DEFAULT)["AccountDefaultStatus"] == "ENABLED"


def test_an_app_is_created_described_changed_and_deleted(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    arn = sagemaker.create_mlflow_app(Name="mine", ArtifactStoreUri="s3://b/a", RoleArn=ROLE)["Arn"]
    app = sagemaker.describe_mlflow_app(Arn=arn)
    assert (app["Name"], app["Status"], app["ArtifactStoreUri"]) == ("mine", "Created", "s3://b/a")
    sagemaker.update_mlflow_app(Arn=arn, AccountDefaultStatus="ENABLED")
    listed = sagemaker.list_mlflow_apps(AccountDefaultStatus="ENABLED", SortBy="Name", SortOrder="Descending")
    assert [each["Name"] for each in listed["Summaries"]] == ["mine", "local"]
    refused(
        lambda: sagemaker.create_mlflow_app(Name="mine", ArtifactStoreUri="s3://b/a", RoleArn=ROLE),
        "ValidationException",
    )
    sagemaker.delete_mlflow_app(Arn=arn)
    refused(lambda: sagemaker.describe_mlflow_app(Arn=arn), "ResourceNotFound")
    refused(lambda: sagemaker.delete_mlflow_app(Arn=arn), "ResourceNotFound")


def test_without_mlflow_an_apps_url_says_that_there_is_none(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    message = refused(lambda: sagemaker.create_presigned_mlflow_app_url(Arn=DEFAULT), "ValidationException")
    assert "without MLflow" in message
    refused(lambda: sagemaker.create_presigned_mlflow_app_url(Arn=DEFAULT + "-not"), "ResourceNotFound")
