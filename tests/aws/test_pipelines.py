"""Pipeline executions: their steps are really done, in their order, and end as they must."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator.address import Address, DatabaseURL
from emulator.pipeline import InvalidDefinition, InvalidReference, follow, read_definition, resolve
from tests.jobs import agents
from tests.jobs.conftest import AWS, aws_with, evaluation
from tests.stored import spelled

PIPELINE = "SagemakerEvaluation-MTRLEvaluation"
ROLE = "arn:aws:iam::123456789012:role/service-role"
ID = {"Get": "Execution.PipelineExecutionId"}
ENDED = ("Succeeded", "Failed", "Stopped")


@pytest.fixture(autouse=True)
def _agents_go() -> Iterator[None]:
    agents.GO.clear()
    yield
    agents.GO.set()


def joined(glue: str, *values: object) -> dict[str, Any]:
    return {"Std:Join": {"On": glue, "Values": list(values)}}


def job_step(name: str, *needs: str, **hyperparameters: object) -> dict[str, Any]:
    """As sagemaker-train 1.27.0 writes it: the document is a text."""
    arguments = {
        "JobCategory": "AgentRFTEvaluation",
        "RoleArn": ROLE,
        "JobConfigSchemaVersion": "1.0.0",
        "JobConfigDocument": json.dumps(evaluation(**hyperparameters)),
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        "Tags": [{"Key": "team", "Value": "a"}],
    }
    return {"Name": name, "Type": "Job", "DependsOn": list(needs), "Arguments": arguments}


FIRST = {
    "Name": "CreateEvaluationAction",
    "Type": "Lineage",
    "Arguments": {
        "Actions": [
            {
                "ActionName": ID,
                "ActionType": "Evaluation",
                "Source": {"SourceUri": "arn:aws:sagemaker:us-west-2:aws:model/m", "SourceType": "Model"},
                "Properties": {
                    "PipelineExecutionArn": {"Get": "Execution.PipelineExecutionArn"},
                    "PipelineName": PIPELINE,
                },
            }
        ],
        "Contexts": [
            {
                "ContextName": ID,
                "ContextType": "PipelineExecution",
                "Source": {"SourceUri": {"Get": "Execution.PipelineExecutionArn"}},
            }
        ],
        "Associations": [
            {
                "Source": {"Name": ID, "Type": "Action"},
                "Destination": {"Name": ID, "Type": "Context"},
                "AssociationType": "ContributedTo",
            }
        ],
    },
}  # fmt: skip

OF_STEP = "Steps.EvaluateBaseModel.JobConfigDocument"

LAST = {
    "Name": "AssociateLineage",
    "Type": "Lineage",
    "DependsOn": ["EvaluateBaseModel"],
    "Arguments": {
        "Artifacts": [
            {
                "ArtifactName": joined("-", ID, "base-eval-report"),
                "ArtifactType": "EvaluationReport",
                "Source": {"SourceUri": {"Get": f"{OF_STEP}.OutputDataConfig.S3OutputPath"}},
                "Properties": {"RunId": {"Get": f"{OF_STEP}.ServiceOutput.MlflowDetails.RunId"}},
            }
        ],
        "Associations": [
            {
                "Source": {"Name": joined("-", ID, "base-eval-report"), "Type": "Artifact"},
                "Destination": {"Arn": joined("/", "arn:aws:sagemaker:us-west-2:123456789012:action", ID)},
                "AssociationType": "ContributedTo",
            }
        ],
    },
}


def put(aws: AWS, *steps: dict[str, Any], new: bool = True, **more: Any) -> None:
    client = aws.client("sagemaker")
    definition = json.dumps({"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": steps, **more})
    if new:
        tags = [{"Key": "SagemakerModelEvaluation", "Value": "true"}]
        client.create_pipeline(
            PipelineName=PIPELINE, PipelineDefinition=definition, RoleArn=ROLE, ClientRequestToken="t" * 32, Tags=tags
        )
    else:
        client.update_pipeline(PipelineName=PIPELINE, PipelineDefinition=definition, RoleArn=ROLE)


def start(aws: AWS, **more: Any) -> str:
    arn: str = aws.client("sagemaker").start_pipeline_execution(PipelineName=PIPELINE, **more)["PipelineExecutionArn"]
    return arn


def until(aws: AWS, arn: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while not is_so(found := aws.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=arn)):
        assert time.monotonic() < deadline, (found, steps_of(aws, arn))
        time.sleep(0.05)
    return dict(found)


def ended(aws: AWS, arn: str) -> dict[str, Any]:
    return until(aws, arn, lambda found: found["PipelineExecutionStatus"] in ENDED)


def steps_of(aws: AWS, arn: str) -> list[dict[str, Any]]:
    client = aws.client("sagemaker")
    steps: list[dict[str, Any]] = client.list_pipeline_execution_steps(PipelineExecutionArn=arn)[
        "PipelineExecutionSteps"
    ]
    return steps


def jobs_of(aws: AWS) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = aws.client("sagemaker").list_jobs(JobCategory="AgentRFTEvaluation")["JobSummaries"]
    return jobs


def test_an_evaluation_s_pipeline_does_its_job_and_notes_what_came_of_what() -> None:
    with aws_with("good") as aws:
        aws.prepare()
        client = aws.client("sagemaker")
        put(aws, LAST, job_step("EvaluateBaseModel", "CreateEvaluationAction"), FIRST)
        arn = start(aws, PipelineExecutionDisplayName="mine", ClientRequestToken="a" * 32)
        assert arn.startswith(f"arn:aws:sagemaker:us-west-2:123456789012:pipeline/{PIPELINE}/execution/")
        assert start(aws, ClientRequestToken="a" * 32) == arn
        found = ended(aws, arn)
        assert (found["PipelineExecutionStatus"], found.get("FailureReason")) == ("Succeeded", None)
        assert (found["PipelineExecutionDisplayName"], found["PipelineArn"]) == ("mine", arn.partition("/execution")[0])
        newest, job, oldest = steps_of(aws, arn)
        assert [each["StepName"] for each in (oldest, job, newest)] == [
            "CreateEvaluationAction", "EvaluateBaseModel", "AssociateLineage",
        ]  # fmt: skip
        assert all(each["StepStatus"] == "Succeeded" and each["EndTime"] >= each["StartTime"] for each in (oldest, job))
        # The SDK reads the one, the service model has the other.
        (summary,) = jobs_of(aws)
        assert job["Metadata"] == {"TrainingJob": {"Arn": summary["JobArn"]}, "Job": {"Arn": summary["JobArn"]}}
        described = client.describe_job(JobName=summary["JobName"], JobCategory="AgentRFTEvaluation")
        assert (described["JobStatus"], described["Tags"]) == ("Completed", [{"Key": "team", "Value": "a"}])
        assert (
            b"eval/reward/mean"
            in aws.client("s3").get_object(Bucket="bucket", Key="out/eval-results.json")["Body"].read()
        )
        execution_id = arn.rpartition("/")[2]
        action = client.describe_action(ActionName=execution_id)
        assert action["Properties"] == {"PipelineExecutionArn": arn, "PipelineName": PIPELINE}
        (report,) = newest["Metadata"]["Lineage"]["ArtifactArns"].values()
        assert client.describe_artifact(ArtifactArn=report)["Source"]["SourceUri"] == "s3://bucket/out"
        associated = client.list_associations(DestinationArn=action["ActionArn"])["AssociationSummaries"]
        assert [each["SourceArn"] for each in associated] == [report]


def test_an_execution_has_the_definition_that_it_began_with() -> None:
    with aws_with("good_when_told") as aws:
        aws.prepare()
        client = aws.client("sagemaker")
        put(aws, job_step("One"))
        arn = start(aws)
        put(aws, FIRST, new=False)
        agents.GO.set()
        assert ended(aws, arn)["PipelineExecutionStatus"] == "Succeeded"
        assert [each["StepName"] for each in steps_of(aws, arn)] == ["One"]
        definition = client.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)["PipelineDefinition"]
        assert [each["Name"] for each in json.loads(definition)["Steps"]] == ["One"]
        other = start(aws)
        ended(aws, other)
        question = {"PipelineName": PIPELINE, "MaxResults": 1}
        page = client.list_pipeline_executions(**question)
        rest = client.list_pipeline_executions(**question, NextToken=page["NextToken"])
        pages = (page, rest)
        listed = [each["PipelineExecutionArn"] for one in pages for each in one["PipelineExecutionSummaries"]]
        assert listed == [other, arn]
        assert "NextToken" not in rest


def test_tags_of_a_pipeline_are_moto_s() -> None:
    with aws_with("good") as aws:
        client = aws.client("sagemaker")
        put(aws, FIRST)
        arn = client.describe_pipeline(PipelineName=PIPELINE)["PipelineArn"]
        client.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])
        client.delete_tags(ResourceArn=arn, TagKeys=["SagemakerModelEvaluation"])
        assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "b"}]


def test_parameters_have_their_defaults_unless_they_are_given() -> None:
    parameters = [{"Name": "Uri", "Type": "String", "DefaultValue": "s3://default"}]
    with aws_with("good") as aws:
        client = aws.client("sagemaker")
        source = {"SourceUri": {"Get": "Parameters.Uri"}}
        step = {"Name": "A", "Type": "Lineage", "Arguments": {
            "Actions": [{"ActionName": ID, "ActionType": "Evaluation", "Source": source}],
        }}  # fmt: skip
        put(aws, step, Parameters=parameters)
        given = [{"Name": "Uri", "Value": "s3://given"}]
        for more, uri in (({}, "s3://default"), ({"PipelineParameters": given}, "s3://given")):
            arn = start(aws, **more)
            assert ended(aws, arn)["PipelineExecutionStatus"] == "Succeeded"
            assert client.describe_action(ActionName=arn.rpartition("/")[2])["Source"]["SourceUri"] == uri
        listed = client.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
        assert listed == given


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (job_step("Bad", rollout_max_retries=0), "ClientError: none of 10 rollouts got a reward"),
        (job_step("Bad", eval_group_size="many"), "EvaluationConfig.HyperParameters: eval_group_size: 'many'"),
        ({"Name": "Bad", "Type": "Training", "Arguments": {}}, "steps of type Training are not emulated"),
        ({"Name": "Bad", "Type": "Lineage", "Arguments": {"Actions": [{"ActionName": {"Get": "Execution.Nonsense"}}]}},
         "Execution.Nonsense names nothing"),
    ],
)  # fmt: skip
def test_a_step_that_fails_fails_its_execution(step: dict[str, Any], reason: str) -> None:
    with aws_with("raises") as aws:
        aws.prepare()
        put(aws, step, {**FIRST, "DependsOn": ["Bad"]})
        arn = start(aws)
        found = ended(aws, arn)
        assert (found["PipelineExecutionStatus"], found["FailureReason"]) == (
            "Failed", "Step failure: One or multiple steps failed.",
        )  # fmt: skip
        (only,) = steps_of(aws, arn)
        assert (only["StepName"], only["StepStatus"]) == ("Bad", "Failed")
        assert reason in only["FailureReason"]


def test_an_execution_that_is_stopped_stops_its_jobs() -> None:
    with aws_with("good_when_told") as aws:
        aws.prepare()
        client = aws.client("sagemaker")
        put(aws, job_step("One"), job_step("Two", "One"))
        arn = start(aws)
        until(aws, arn, lambda _: any(each["JobSecondaryStatus"] == "Evaluating" for each in jobs_of(aws)))
        client.stop_pipeline_execution(PipelineExecutionArn=arn)
        found = ended(aws, arn)
        assert (found["PipelineExecutionStatus"], found.get("FailureReason")) == ("Stopped", None)
        assert [(each["StepName"], each["StepStatus"]) for each in steps_of(aws, arn)] == [("One", "Stopped")]
        assert [each["JobStatus"] for each in jobs_of(aws)] == ["Stopped"]
        with pytest.raises(client.exceptions.ClientError, match="is Stopped, and cannot be stopped"):
            client.stop_pipeline_execution(PipelineExecutionArn=arn)


def test_a_server_goes_on_with_the_execution_of_the_one_before(any_database: Address) -> None:
    settings = {"database": spelled(any_database)}
    with aws_with("good_when_told", **settings) as aws:
        aws.prepare()
        put(aws, job_step("EvaluateBaseModel"), LAST)
        arn = start(aws)
        until(aws, arn, lambda _: any(each["JobSecondaryStatus"] == "Evaluating" for each in jobs_of(aws)))
    agents.GO.set()
    with aws_with("good", **settings) as aws:
        if isinstance(any_database, DatabaseURL):  # what moto held is gone
            aws.prepare()
        found = ended(aws, arn)
        assert (found["PipelineExecutionStatus"], len(jobs_of(aws))) == ("Succeeded", 1)
        assert [each["StepName"] for each in steps_of(aws, arn)] == ["AssociateLineage", "EvaluateBaseModel"]


def test_an_execution_can_be_seen_and_stopped_at_either_of_two_servers(postgresql_database: DatabaseURL) -> None:
    settings = {"database": postgresql_database.conninfo}
    with aws_with("good_when_told", **settings) as one, aws_with("good_when_told", **settings) as other:
        one.prepare()
        put(one, job_step("One"), job_step("Two", "One"))
        arn = start(one, ClientRequestToken="a" * 32)
        assert start(other, ClientRequestToken="a" * 32) == arn
        until(other, arn, lambda _: any(each["JobSecondaryStatus"] == "Evaluating" for each in jobs_of(other)))
        other.client("sagemaker").stop_pipeline_execution(PipelineExecutionArn=arn)
        assert ended(other, arn)["PipelineExecutionStatus"] == "Stopped"
        assert [(each["StepName"], each["StepStatus"]) for each in steps_of(one, arn)] == [("One", "Stopped")]
        assert [each["JobStatus"] for each in jobs_of(one)] == ["Stopped"]


def test_a_server_ends_what_the_one_before_was_told_to_stop(database: Any) -> None:
    settings = {"durability": "full", "database": str(database), "shutdown_timeout": 0.1}
    with aws_with("good_when_told", **settings) as aws:
        aws.prepare()
        put(aws, job_step("One"), job_step("Two", "One"))
        arn = start(aws)
        until(aws, arn, lambda _: any(each["JobSecondaryStatus"] == "Evaluating" for each in jobs_of(aws)))
        aws.client("sagemaker").stop_pipeline_execution(PipelineExecutionArn=arn)
    agents.GO.set()
    with aws_with("good", **settings) as aws:
        assert ended(aws, arn)["PipelineExecutionStatus"] == "Stopped"
        assert "Two" not in [each["StepName"] for each in steps_of(aws, arn)]
        assert all(each["JobStatus"] in ("Stopped", "Completed") for each in jobs_of(aws))


def test_two_executions_of_one_pipeline_have_jobs_of_their_own() -> None:
    with aws_with("good_when_told") as aws:
        aws.prepare()
        client = aws.client("sagemaker")
        put(aws, job_step("EvaluateBaseModel"), LAST)
        stopped, other = start(aws, ClientRequestToken="1" * 32), start(aws, ClientRequestToken="2" * 32)
        assert start(aws, ClientRequestToken="2" * 32) == other != stopped
        until(aws, other, lambda _: len([job for job in jobs_of(aws) if job["JobStatus"] == "InProgress"]) == 2)
        client.stop_pipeline_execution(PipelineExecutionArn=stopped)
        assert ended(aws, stopped)["PipelineExecutionStatus"] == "Stopped"
        agents.GO.set()
        assert ended(aws, other)["PipelineExecutionStatus"] == "Succeeded"
        assert sorted(job["JobStatus"] for job in jobs_of(aws)) == ["Completed", "Stopped"]


def test_what_is_not_there_is_said() -> None:
    with aws_with("good") as aws:
        client = aws.client("sagemaker")
        absent = f"arn:aws:sagemaker:us-west-2:123456789012:pipeline/{PIPELINE}/execution/abcdefghijkl"
        for call in (client.describe_pipeline_execution, client.list_pipeline_execution_steps, client.stop_pipeline_execution):  # fmt: skip # noqa: E501
            with pytest.raises(client.exceptions.ResourceNotFound):
                call(PipelineExecutionArn=absent)
        for call in (client.start_pipeline_execution, client.list_pipeline_executions):
            with pytest.raises(client.exceptions.ResourceNotFound):
                call(PipelineName="absent")


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([{"Name": "A"}], "KeyError: 'Type'"),
        ([{"Name": ["A"], "Type": "Job"}], "Name and Type of a step are texts"),
        ([FIRST, FIRST], "two steps of one name"),
        ([{**FIRST, "DependsOn": ["Absent"]}], "needs Absent, which the pipeline has not"),
        ([job_step("A", "B"), job_step("B", "A")], "wait for one another"),
    ],
)
def test_a_definition_that_cannot_be_run_is_refused(steps: list[Any], problem: str) -> None:
    with pytest.raises(InvalidDefinition, match=problem):
        read_definition(json.dumps({"Steps": steps}), {})


def test_references_are_resolved_wherever_they_stand() -> None:
    document = {"a": '{"b": {"c": 3}}'}

    def get(path: str) -> Any:
        return follow(document, path, path)

    value = {"x": [{"Get": "a.b.c"}], "y": joined("/", "s3:/", {"Get": "a.b.c"}), "Get": "a plain member", "z": None}
    assert resolve(value, get) == {"x": [3], "y": "s3://3", "Get": "a plain member", "z": None}
    with pytest.raises(InvalidReference, match=r"a\.d names nothing"):
        resolve({"Get": "a.d"}, get)
