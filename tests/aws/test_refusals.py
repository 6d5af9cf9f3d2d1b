"""What nobody emulates is refused at once, as a client of that protocol reads it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from botocore.exceptions import ClientError

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.aws.conftest import ACCOUNT, client, make_bucket, refused

ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "code"),
    [
        ("sagemaker", "list_mlflow_tracking_servers", {}, "UnknownOperationException"),  # JSON
        ("workmail", "list_organizations", {}, "UnknownOperationException"),  # JSON, of a service unknown to moto
        ("iam", "generate_service_last_accessed_details", {"Arn": ROLE}, "InvalidAction"),  # query
        ("ec2", "describe_aws_network_performance_metric_subscriptions", {}, "InvalidAction"),  # EC2's own
        ("bedrock", "list_foundation_models", {}, "UnknownOperationException"),  # REST with JSON
        ("cloudwatch", "list_metric_streams", {}, "UnknownOperationException"),  # CBOR
        ("route53", "list_cidr_collections", {}, "MethodNotAllowed"),  # REST with XML
    ],
)
def test_an_operation_that_nobody_emulates(
    aws: Server, service: str, operation: str, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(ClientError) as error:
        getattr(client(aws, service), operation)(**arguments)
    found = error.value.response
    assert (found["Error"]["Code"], found["ResponseMetadata"]["HTTPStatusCode"]) == (code, 400)
    assert "is not emulated" in found["Error"]["Message"]


def test_motos_own_errors_are_passed_on(aws: Server) -> None:
    refused(lambda: client(aws, "s3").get_object(Bucket="no-such", Key="k"), "NoSuchBucket", 404)
    refused(lambda: client(aws, "iam").get_role(RoleName="nobody"), "NoSuchEntity", 404)
    missing = {"logGroupName": "/none", "logStreamName": "s"}
    refused(lambda: client(aws, "logs").get_log_events(**missing), "ResourceNotFoundException")


def test_where_moto_fails_a_client_reads_a_500_of_aws(aws: Server, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/us-west-2/logs/aws4_request, Signature=0"}
    headers |= {"x-amz-target": "Logs_20140328.CreateLogGroup", "content-type": "application/x-amz-json-1.1"}
    answer = httpx2.post(aws.url, headers=headers, content=b"{}")
    assert answer.status_code == 500
    assert answer.json()["__type"] == "InternalServiceError"
    assert "moto failed" in caplog.text


@pytest.mark.parametrize(
    ("service", "path", "more", "code"),
    [
        ("s3", "/bucket?tagging", {}, "<Code>MalformedXML</Code>"),
        ("lambda", "/2015-03-31/functions", {}, '"__type": "SerializationException"'),
    ],
)
def test_a_body_that_cannot_be_read_is_the_client_s_error(
    aws: Server, service: str, path: str, more: dict[str, str], code: str
) -> None:
    s3 = client(aws, "s3")
    if not s3.list_buckets()["Buckets"]:
        make_bucket(s3)
    headers = {"authorization": f"AWS4-HMAC-SHA256 Credential=k/20260101/us-west-2/{service}/aws4_request, Signature=0"}
    method = "PUT" if service == "s3" else "POST"
    answer = httpx2.request(method, aws.url + path, headers=headers | more, content=b"<{")
    assert answer.status_code == 400
    assert code in answer.text


def test_a_request_that_is_too_large_is_told_which_setting_says_so() -> None:
    with running_server(Settings(port=0, durability="memory", max_request_bytes=1000)) as server:
        code = {"ZipFile": b"x" * 1000}
        create = client(server, "lambda").create_function
        message = refused(lambda: create(FunctionName="f", Role=ROLE, Code=code), "ValidationException")
        assert message == "The request body is larger than 1000 bytes; --max-request-bytes sets another limit"


def test_a_key_has_at_most_1024_bytes(aws: Server) -> None:
    s3 = client(aws, "s3")
    make_bucket(s3, "keys")
    s3.put_object(Bucket="keys", Key="é" * 512)
    refused(lambda: s3.put_object(Bucket="keys", Key="é" * 512 + "x"), "KeyTooLongError")


def test_motos_own_pages_are_not_for_clients(aws: Server) -> None:
    headers = {"authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/us-west-2/s3/aws4_request, Signature=0"}
    for path in ("/moto-api/reset", "/moto-api/recorder/start-recording"):
        assert httpx2.post(aws.url + path, headers=headers).status_code == 400


def test_another_web_sites_page_is_refused(aws: Server) -> None:
    headers = {"authorization": "AWS4-HMAC-SHA256 Credential=k/20260101/us-west-2/s3/aws4_request, Signature=0"}
    answer = httpx2.put(f"{aws.url}/bucket", headers=headers | {"origin": "http://elsewhere.example"})
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text
