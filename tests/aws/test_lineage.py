"""Artifacts, actions, contexts and their associations."""

from __future__ import annotations

from emulator.server import Server
from tests.aws.conftest import client, refused


def test_an_artifact_is_found_by_its_source_as_the_evaluator_looks_for_it(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    uri = "arn:aws:sagemaker:us-west-2:aws:hub-content/SageMakerPublicHub/Model/m/1.0.0"
    assert sagemaker.list_artifacts(SourceUri=uri)["ArtifactSummaries"] == []
    source = {"SourceUri": uri, "SourceTypes": [{"SourceIdType": "Custom", "Value": "v"}]}
    made = sagemaker.create_artifact(ArtifactType="Model", Source=source, Properties={"Name": "value"})
    (found,) = sagemaker.list_artifacts(SourceUri=uri)["ArtifactSummaries"]
    assert found["ArtifactArn"] == made["ArtifactArn"]
    assert found["Source"] == source
    described = sagemaker.describe_artifact(ArtifactArn=made["ArtifactArn"])
    assert (described["ArtifactType"], described["Properties"]) == ("Model", {"Name": "value"})
    sagemaker.update_artifact(ArtifactArn=made["ArtifactArn"], Properties={"B": "b"}, PropertiesToRemove=["Name"])
    assert sagemaker.describe_artifact(ArtifactArn=made["ArtifactArn"])["Properties"] == {"B": "b"}
    sagemaker.delete_artifact(ArtifactArn=made["ArtifactArn"])
    refused(lambda: sagemaker.describe_artifact(ArtifactArn=made["ArtifactArn"]), "ResourceNotFound")


def test_artifacts_are_listed_in_pages_the_latest_first(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    for number in range(5):
        source = {"SourceUri": f"s3://b/{number}"}
        sagemaker.create_artifact(ArtifactName=f"a{number}", ArtifactType="Paged", Source=source)
    pages = sagemaker.get_paginator("list_artifacts").paginate(ArtifactType="Paged", PaginationConfig={"PageSize": 2})
    listed = [[each["ArtifactName"] for each in page["ArtifactSummaries"]] for page in pages]
    assert listed == [["a4", "a3"], ["a2", "a1"], ["a0"]]


def test_what_a_pipelines_lineage_step_makes_can_be_looked_up(aws: Server) -> None:
    sagemaker = client(aws, "sagemaker")
    run = {"SourceUri": "arn:of-the-run"}
    action = sagemaker.create_action(ActionName="run1", ActionType="Evaluation", Source=run, Properties={"P": "p"})
    context = sagemaker.create_context(ContextName="run1", ContextType="PipelineExecution", Source=run)
    ends = {"SourceArn": action["ActionArn"], "DestinationArn": context["ContextArn"]}
    sagemaker.add_association(**ends, AssociationType="ContributedTo")
    (found,) = sagemaker.list_associations(SourceArn=action["ActionArn"])["AssociationSummaries"]
    assert (found["DestinationName"], found["DestinationType"]) == ("run1", "PipelineExecution")
    assert found["AssociationType"] == "ContributedTo"
    assert sagemaker.list_associations(SourceType="Other")["AssociationSummaries"] == []
    assert sagemaker.describe_action(ActionName="run1")["Properties"] == {"P": "p"}
    assert sagemaker.describe_context(ContextName="run1")["ContextArn"] == context["ContextArn"]
    refused(lambda: sagemaker.create_action(ActionName="run1", ActionType="x", Source=run), "ValidationException")
    sagemaker.delete_association(**ends)
    refused(lambda: sagemaker.delete_association(**ends), "ResourceNotFound")
    sagemaker.delete_action(ActionName="run1")
    assert sagemaker.list_actions(SourceUri="arn:of-the-run")["ActionSummaries"] == []
    assert len(sagemaker.list_contexts(SourceUri="arn:of-the-run")["ContextSummaries"]) == 1
