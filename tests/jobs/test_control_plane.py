"""The control plane through boto3: every operation, every modelled error, every page."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx2
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.address import Address
from emulator.control import CONTROL_OPERATIONS
from emulator.job import Category
from emulator.job_config import schema_text
from emulator.protocol.aws_json import load_control_model
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.job_config import EVALUATION, TRAINING
from tests.stored import spelled

ROLE = "arn:aws:iam::123456789012:role/service-role"
ENDED = ("Completed", "Failed", "Stopped")


def control(server: Server) -> Any:
    return boto3.client(
        "sagemaker",
        endpoint_url=server.url,
        region_name="us-west-2",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


@pytest.fixture
def server(any_database: Address) -> Iterator[Server]:
    """A server for a test of its own, on either database."""
    with running_server(Settings(port=0, database=spelled(any_database))) as server:
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """A server for questions that do not change it."""
    with running_server() as server:
        yield server


def create(client: Any, name: str = "j", document: Any = None, category: str = "AgentRFT", **more: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document or TRAINING)
    arn: str = client.create_job(
        JobName=name,
        RoleArn=ROLE,
        JobCategory=category,
        JobConfigSchemaVersion=more.pop("version", "1.0.0"),
        JobConfigDocument=text,
        **more,
    )["JobArn"]
    return arn


def ended(client: Any, name: str = "j", category: str = "AgentRFT") -> dict[str, Any]:
    """The job when it has ended: without an agent, soon."""
    deadline = time.monotonic() + 30
    while True:
        job: dict[str, Any] = client.describe_job(JobName=name, JobCategory=category)
        if job["JobStatus"] in ENDED:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.02)


def refused(call: Any, code: str) -> str:
    with pytest.raises(ClientError) as error:
        call()
    assert error.value.response["Error"]["Code"] == code
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(error.value.response["Error"]["Message"])


def test_a_job_is_described_as_it_was_created(server: Server) -> None:
    client = control(server)
    before = datetime.now(UTC) - timedelta(seconds=1)
    arn = create(client, Tags=[{"Key": "team", "Value": "a"}])
    assert arn == "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/j"
    job = ended(client)
    assert (job["JobArn"], job["JobName"], job["RoleArn"], job["JobCategory"]) == (arn, "j", ROLE, "AgentRFT")
    document = json.loads(job["JobConfigDocument"])
    document.pop("ServiceOutput", None)
    assert document == TRAINING
    assert job["Tags"] == [{"Key": "team", "Value": "a"}]
    assert before < job["CreationTime"] <= job["LastModifiedTime"]
    first, second, *_ = job["SecondaryStatusTransitions"]
    assert (first["Status"], first["StatusMessage"], first["EndTime"]) == (
        "Starting",
        "Job created",
        second["StartTime"],
    )
    assert second["Status"] == "Downloading"


def test_a_job_whose_data_cannot_be_read_fails_and_says_why(server: Server) -> None:
    client = control(server)
    create(client)
    job = ended(client)
    assert (job["JobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert "s3://bucket/train.jsonl" in job["FailureReason"]
    assert job["EndTime"] == job["LastModifiedTime"]


def test_a_name_is_taken_once(server: Server) -> None:
    client = control(server)
    create(client)
    assert "j exists" in refused(lambda: create(client), "ResourceInUse")
    create(client, document=EVALUATION, category="AgentRFTEvaluation")


def test_what_does_not_fit_the_schema_is_refused_with_its_place(shared: Server) -> None:
    client = control(shared)
    document = {**TRAINING, "InputDataConfig": []}
    assert "InputDataConfig: " in refused(lambda: create(client, document=document), "ValidationException")
    refused(lambda: create(client, document="{"), "ValidationException")
    refused(lambda: create(client, version="2.0.0"), "ResourceNotFound")


@pytest.mark.parametrize(
    ("operation", "members", "said"),
    [
        ("CreateJob", {}, "5 validation errors detected: Value null at 'jobName' failed to satisfy constraint"),
        ("DescribeJob", {"JobName": "-", "JobCategory": "AgentRFT"}, "Member must satisfy regular expression pattern"),
        ("DescribeJob", {"JobName": "j", "JobCategory": "Other"}, "Member must satisfy enum value set: [AgentRFT, "),
        ("ListJobs", {"JobCategory": "AgentRFT", "MaxResults": 101}, "Member must have value less than or equal to"),
        ("ListJobs", {"JobCategory": "AgentRFT", "NextToken": "x"}, "NextToken is not one that was given"),
        ("ListJobs", {"JobCategory": "AgentRFT", "SortBy": "Size"}, "Member must satisfy enum value set"),
        ("ListTags", {"ResourceArn": "x"}, "'resourceArn' failed to satisfy constraint"),
        (
            "DeleteTags",
            {"ResourceArn": "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/j", "TagKeys": []},
            "'tag",
        ),
    ],
)
def test_constraints_of_the_model_hold(shared: Server, operation: str, members: dict[str, Any], said: str) -> None:
    answer = httpx2.post(shared.url, json=members, headers={"x-amz-target": f"SageMaker.{operation}"})
    assert (answer.status_code, answer.json()["__type"]) == (400, "ValidationException")
    assert said in answer.json()["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"JobName": 1}', b'{"JobName": true}', b"\xff"])
def test_what_is_no_request_is_refused(shared: Server, body: bytes) -> None:
    answer = httpx2.post(shared.url, content=body, headers={"x-amz-target": "SageMaker.DescribeJob"})
    assert (answer.status_code, answer.json()["__type"]) == (400, "SerializationException")


@pytest.mark.parametrize(
    ("operation", "members", "place"),
    [
        ("CreateJob", {"JobConfigDocument": "\ud800"}, "jobConfigDocument"),
        ("AddTags", {"ResourceArn": ROLE, "Tags": [{"Key": "\udfff"}]}, "tags.1.member.key"),
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_is_no_text(shared: Server, operation: str, members: dict[str, Any], place: str) -> None:
    body = json.dumps(members).encode()
    answer = httpx2.post(shared.url, content=body, headers={"x-amz-target": f"SageMaker.{operation}"})
    assert (answer.status_code, answer.json()["__type"]) == (400, "SerializationException")
    assert answer.json()["message"].startswith(f"{place} must be Unicode")


def test_jobs_that_there_are_not(shared: Server) -> None:
    client = control(shared)
    for call in (client.describe_job, client.stop_job, client.delete_job):
        refused(lambda call=call: call(JobName="nobody", JobCategory="AgentRFT"), "ResourceNotFound")
    arn = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/nobody"
    refused(lambda: client.list_tags(ResourceArn=arn), "ResourceNotFound")
    refused(lambda: client.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}]), "ResourceNotFound")


def test_a_job_that_has_ended_is_deleted_and_its_name_is_free(server: Server) -> None:
    client = control(server)
    create(client)
    ended(client)
    assert "cannot become Stopping" in refused(
        lambda: client.stop_job(JobName="j", JobCategory="AgentRFT"), "ValidationException"
    )
    client.delete_job(JobName="j", JobCategory="AgentRFT")
    refused(lambda: client.describe_job(JobName="j", JobCategory="AgentRFT"), "ResourceNotFound")
    create(client)


def test_tags_are_added_listed_and_taken_away(server: Server) -> None:
    client = control(server)
    arn = create(client, Tags=[{"Key": "a", "Value": "1"}])
    added = client.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "ü", "Value": ""}])["Tags"]
    assert added == [{"Key": "a", "Value": "2"}, {"Key": "ü", "Value": ""}]
    client.delete_tags(ResourceArn=arn, TagKeys=["a", "other"])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "ü", "Value": ""}]
    many = [{"Key": str(number), "Value": ""} for number in range(50)]
    assert "at most 50 tags" in refused(lambda: client.add_tags(ResourceArn=arn, Tags=many), "ValidationException")


@pytest.mark.parametrize("category", Category)
def test_the_schemas_are_there_to_be_read(shared: Server, category: Category) -> None:
    client = control(shared)
    listed = client.list_job_schema_versions(JobCategory=category)["JobConfigSchemas"]
    assert listed == [{"JobConfigSchemaVersion": "1.0.0"}]
    schema = client.describe_job_schema_version(JobCategory=category)
    assert (schema["JobConfigSchemaVersion"], schema["JobConfigSchema"]) == ("1.0.0", schema_text(category, "1.0.0"))
    refused(
        lambda: client.describe_job_schema_version(JobCategory=category, JobConfigSchemaVersion="9.9.9"),
        "ResourceNotFound",
    )


@pytest.mark.parametrize("any_database", ["sqlite"], indirect=True)  # the pages of both: tests/store/test_jobs.py
def test_a_thousand_jobs_are_listed_page_by_page_while_others_come_and_go(server: Server) -> None:
    client = control(server)
    names = [f"job-{number:04}" for number in range(1000)]
    for name in names:
        create(client, name)
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = client.list_jobs(JobCategory="AgentRFT", SortBy="Name", SortOrder="Ascending", MaxResults=100, **token)
        found += [job["JobName"] for job in page["JobSummaries"]]
        if len(found) == 100:
            create(client, "a-new-one")  # before where the first page ended
        if "NextToken" not in page:
            break
        token = {"NextToken": page["NextToken"]}
    assert found == names
    newest = client.list_jobs(JobCategory="AgentRFT")["JobSummaries"]
    assert [job["JobName"] for job in newest] == ["a-new-one", *names[:-50:-1]]  # 50, as the service model says


def test_a_token_belongs_to_its_question(server: Server) -> None:
    client = control(server)
    for name in ("a", "b"):
        create(client, name)
    token = client.list_jobs(JobCategory="AgentRFT", MaxResults=1)["NextToken"]
    question = {"JobCategory": "AgentRFT", "MaxResults": 1, "SortBy": "Name", "NextToken": token}
    refused(lambda: client.list_jobs(**question), "ValidationException")


@pytest.mark.parametrize("place", [[10**30, 1], [1, 10**30], [True, True], [1], [], {}, ["x", 1], [1.5, 1], [1, 2, 3]])
def test_tokens_that_nobody_gave_are_refused(shared: Server, place: Any) -> None:
    client = control(shared)
    for name in ("a", "b"):
        create(client, name, document=EVALUATION, category="AgentRFTEvaluation")
    question = {"JobCategory": "AgentRFTEvaluation", "MaxResults": 1}
    given, _ = json.loads(base64.urlsafe_b64decode(client.list_jobs(**question)["NextToken"]))
    token = base64.urlsafe_b64encode(json.dumps([given, place]).encode()).decode()
    refused(lambda: client.list_jobs(**question, NextToken=token), "ValidationException")
    for name in ("a", "b"):
        ended(client, name, "AgentRFTEvaluation")
        client.delete_job(JobName=name, JobCategory="AgentRFTEvaluation")


def test_filters_are_those_of_the_model(server: Server) -> None:
    client = control(server)
    for name in ("one", "two"):
        create(client, name)
        ended(client, name)
    first = client.describe_job(JobName="one", JobCategory="AgentRFT")

    def names(**question: Any) -> list[str]:
        answer = client.list_jobs(JobCategory="AgentRFT", SortBy="Name", SortOrder="Ascending", **question)
        return [job["JobName"] for job in answer["JobSummaries"]]

    assert names(NameContains="W") == ["two"]
    assert names(StatusEquals="Failed") == ["one", "two"]
    assert names(StatusEquals="Completed") == []
    assert names(CreationTimeAfter=first["CreationTime"]) == ["two"]
    assert names(LastModifiedTimeAfter=datetime(2020, 1, 1, tzinfo=UTC)) == ["one", "two"]
    assert names(LastModifiedTimeBefore=datetime(2020, 1, 1, tzinfo=UTC)) == []


def test_with_aws_s_limits_one_job_of_a_category_is_under_way() -> None:
    target = "python:tests.jobs.agents:never_answers"
    with running_server(Settings(port=0, durability="memory", limits="aws", agents=(target,))) as server:
        client = control(server)
        small = json.loads(json.dumps(TRAINING))
        small["TrainingConfig"]["HyperParameters"] = {"global_batch_size": "1"}
        assert "global_batch_size: 1 is none of" in refused(
            lambda: create(client, document=small), "ValidationException"
        )


def test_every_operation_has_the_members_of_its_shape() -> None:
    import inspect

    from emulator.protocol.service_model import snake_case

    model = load_control_model()
    for name, function in CONTROL_OPERATIONS.items():
        members = model.shapes[model.operations[name]["input"]["shape"]]["members"]
        parameters = list(inspect.signature(function).parameters)[1:]
        assert parameters == [snake_case(member) for member in members], name


#: Of the operations and their shapes, as this code was written against them; see tests/protocol/test_service_model.py.
PINNED = "da2d7809e5f1ae12b48129623386faeb60455d93d654ba5a3d221c3404bae706"


def test_the_control_plane_s_model_is_the_one_that_this_code_was_written_against() -> None:
    assert load_control_model().digest(tuple(sorted(CONTROL_OPERATIONS))) == PINNED
