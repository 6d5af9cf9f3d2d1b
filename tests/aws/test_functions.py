"""Lambda functions made with CreateFunction run, without Docker: for Invoke, and as agents of jobs."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import AWS, aws_with, training

ROLE = "arn:aws:iam::123456789012:role/lambda"

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}

ECHO = """
import os
def handler(event, context):
    print("said", event)
    return {
        "event": event, "name": context.function_name, "arn": context.invoked_function_arn,
        "memory": context.memory_limit_in_mb, "left": context.get_remaining_time_in_millis(),
        "colour": os.environ.get("COLOUR"), "endpoint": os.environ["AWS_ENDPOINT_URL"], "here": os.listdir("."),
        "secret": os.environ.get("JOB_RUNTIME_LOCAL_KEY_PAIRS"),
    }
"""

AGENT = Path(__file__).parents[1].joinpath("jobs", "agents.py").read_text("utf-8")


def zipped(source: str, name: str = "lambda_function.py") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, source)
    return file.getvalue()


def create(aws: AWS, source: str = ECHO, name: str = "f", **more: Any) -> str:
    given: dict[str, Any] = {
        "Runtime": "python3.12", "Handler": "lambda_function.handler", "Timeout": 20,
        "Code": {"ZipFile": zipped(source)}, **more,
    }  # fmt: skip
    iam = aws.client("iam")
    with suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_role(RoleName="lambda", AssumeRolePolicyDocument=json.dumps(TRUST))
    arn: str = aws.client("lambda").create_function(FunctionName=name, Role=ROLE, **given)["FunctionArn"]
    return arn


def invoke(aws: AWS, name: str = "f", event: object = None, **more: Any) -> tuple[dict[str, Any], Any]:
    answer = aws.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event or {}).encode(), **more)
    text = answer["Payload"].read()
    return answer, json.loads(text) if text else None


def log_of(aws: AWS, name: str, is_so: Callable[[list[str]], bool]) -> list[str]:
    logs, deadline = aws.client("logs"), time.monotonic() + 30
    while True:
        lines: list[str] = []
        groups = logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{name}")["logGroups"]
        for group in groups:
            group_name = group["logGroupName"]
            for stream in logs.describe_log_streams(logGroupName=group_name)["logStreams"]:
                events = logs.get_log_events(logGroupName=group_name, logStreamName=stream["logStreamName"])["events"]
                lines += [event["message"] for event in events]
        if is_so(lines):
            return lines
        assert time.monotonic() < deadline, lines
        time.sleep(0.05)


@pytest.fixture(scope="module")
def aws() -> Iterator[AWS]:
    with aws_with("good", key_pairs=("a:b",)) as found:
        yield found


def test_a_function_is_run_with_its_event_environment_and_context(aws: AWS) -> None:
    arn = create(aws, name="echo", MemorySize=256, Environment={"Variables": {"COLOUR": "red"}})
    answer, said = invoke(aws, "echo", {"a": 1}, LogType="Tail")
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in answer
    assert said.pop("left") > 10_000
    assert said == {
        "event": {"a": 1}, "name": "echo", "arn": arn, "memory": "256", "colour": "red",
        "endpoint": aws.server.url, "here": ["lambda_function.py"], "secret": None,
    }  # fmt: skip
    tail = base64.b64decode(answer["LogResult"]).decode().splitlines()
    assert [line.split()[0] for line in tail] == ["START", "said", "END", "REPORT"]
    assert "Memory Size: 256 MB" in tail[-1]
    assert log_of(aws, "echo", lambda lines: len(lines) == 4) == tail
    (stream,) = aws.client("logs").describe_log_streams(logGroupName="/aws/lambda/echo")["logStreams"]
    assert "/[$LATEST]" in stream["logStreamName"]


@pytest.mark.parametrize("named", ["named", "123456789012:function:named", "ARN", "ARN:$LATEST", "named:1", "ARN:live"])
def test_a_function_is_found_by_name_arn_version_and_alias(aws: AWS, named: str) -> None:
    client = aws.client("lambda")
    if not [each for each in client.list_functions()["Functions"] if each["FunctionName"] == "named"]:
        create(aws, name="named")
        client.publish_version(FunctionName="named")
        client.create_alias(FunctionName="named", Name="live", FunctionVersion="1")
    arn = "arn:aws:lambda:us-west-2:123456789012:function:named"
    answer, said = invoke(aws, named.replace("ARN", arn), {"a": 1})
    assert said["event"] == {"a": 1}
    assert answer["ExecutedVersion"] == ("1" if named.endswith((":1", ":live")) else "$LATEST")


def test_new_code_and_a_new_configuration_take_effect(aws: AWS) -> None:
    create(aws, "def handler(event, context): return 1\n", "changing")
    client = aws.client("lambda")
    assert invoke(aws, "changing")[1] == 1
    client.update_function_code(FunctionName="changing", ZipFile=zipped("def handler(e, c): return 2\ndef other(e, c): return 3\n"))  # fmt: skip # noqa: E501
    assert invoke(aws, "changing")[1] == 2
    client.update_function_configuration(FunctionName="changing", Handler="lambda_function.other")
    assert invoke(aws, "changing")[1] == 3
    client.delete_function(FunctionName="changing")
    with pytest.raises(client.exceptions.ResourceNotFoundException, match=r"Function not found: .*:function:changing"):
        invoke(aws, "changing")


def test_code_may_lie_in_a_bucket_and_in_packages(aws: AWS) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    s3.put_object(Bucket="code", Key="f.zip", Body=zipped("def run(event, context): return __name__\n", "app/main.py"))
    create(aws, name="packed", Code={"S3Bucket": "code", "S3Key": "f.zip"}, Handler="app/main.run")
    assert invoke(aws, "packed")[1] == "app.main"


def test_events_are_taken_and_done_later(aws: AWS) -> None:
    create(aws, name="later")
    answer, said = invoke(aws, "later", {"b": 2}, InvocationType="Event")
    assert (answer["StatusCode"], said) == (202, None)
    assert "said {'b': 2}" in log_of(aws, "later", bool)
    assert invoke(aws, "later", InvocationType="DryRun")[0]["StatusCode"] == 204


@pytest.mark.parametrize(
    ("source", "more", "error"),
    [
        ("def handler(e, c):\n    raise ValueError('broken')\n", {}, {
            "errorType": "ValueError", "errorMessage": "broken",
        }),
        ("import absent\n", {}, {
            "errorType": "Runtime.ImportModuleError",
            "errorMessage": "Unable to import module 'lambda_function': No module named 'absent'",
        }),
        ("", {}, {
            "errorType": "Runtime.HandlerNotFound",
            "errorMessage": "Handler 'handler' missing on module 'lambda_function'",
        }),
        ("", {"Handler": "absent.handler"}, {
            "errorType": "Runtime.ImportModuleError",
            "errorMessage": "Unable to import module 'absent': No module named 'absent'",
        }),
        ("def handler(e, c) return 1\n", {}, {"errorType": "Runtime.UserCodeSyntaxError"}),
        ("def handler(e, c): return {1}\n", {}, {
            "errorType": "Runtime.MarshalError",
            "errorMessage": "Unable to marshal response: Object of type set is not JSON serializable",
        }),
        ("import time\ndef handler(e, c): time.sleep(60)\n", {"Timeout": 1}, {
            "errorType": "Sandbox.Timedout", "errorMessage": "Error: Task timed out after 1.00 seconds",
        }),
        ("import os\ndef handler(e, c): os._exit(3)\n", {}, {
            "errorType": "Runtime.ExitError", "errorMessage": "Error: Runtime exited with error: exit status 3",
        }),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said_as_lambda_says_it(
    aws: AWS, source: str, more: dict[str, Any], error: dict[str, str]
) -> None:
    client = aws.client("lambda")
    if [each for each in client.list_functions()["Functions"] if each["FunctionName"] == "bad"]:
        client.delete_function(FunctionName="bad")
    create(aws, source, "bad", **more)
    answer, said = invoke(aws, "bad", LogType="Tail")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert said["errorType"] == error["errorType"]
    assert error.get("errorMessage", "") in said["errorMessage"]
    assert "REPORT" in base64.b64decode(answer["LogResult"]).decode()
    if error["errorType"] == "ValueError":
        assert said["stackTrace"][0].rstrip().endswith("raise ValueError('broken')")
        assert "[ERROR] ValueError: broken" in base64.b64decode(answer["LogResult"]).decode()
        assert invoke(aws, "bad")[0]["FunctionError"] == "Unhandled"  # it serves on


def test_what_cannot_be_run_here_is_refused(aws: AWS) -> None:
    create(aws, name="node", Runtime="nodejs20.x", Handler="index.handler")
    with pytest.raises(aws.client("lambda").exceptions.InvalidRuntimeException, match="only Python functions"):
        invoke(aws, "node")
    layer = aws.client("lambda").publish_layer_version(LayerName="l", Content={"ZipFile": zipped("", "python/l.py")})
    create(aws, name="layered", Layers=[layer["LayerVersionArn"]])
    with pytest.raises(aws.client("lambda").exceptions.InvalidRuntimeException, match="layers are not emulated") as e:
        invoke(aws, "layered")
    assert e.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400  # clients try a 502 again
    image = {"ImageUri": "123456789012.dkr.ecr.us-west-2.amazonaws.com/agent:1"}
    create(aws, name="image", PackageType="Image", Code=image)
    with pytest.raises(aws.client("lambda").exceptions.InvalidRuntimeException, match="not of an image"):
        invoke(aws, "image")
    create(aws, name="nonsense", Code={"ZipFile": b"no zip"})
    with pytest.raises(aws.client("lambda").exceptions.InvalidZipFileException, match="cannot be unpacked"):
        invoke(aws, "nonsense")
    create(aws, name="fine")
    with pytest.raises(aws.client("lambda").exceptions.InvalidRequestContentException):
        aws.client("lambda").invoke(FunctionName="fine", Payload=b"{")


def test_an_event_and_an_answer_have_the_sizes_that_lambda_takes(aws: AWS) -> None:
    create(aws, "def handler(e, c): return e\n", "large")
    client = aws.client("lambda")
    with pytest.raises(client.exceptions.RequestTooLargeException, match=r"limit 6291456 bytes"):
        invoke(aws, "large", "x" * 6_291_456)
    with pytest.raises(client.exceptions.RequestTooLargeException, match=r"limit 1048576 bytes"):
        invoke(aws, "large", "x" * 1_048_576, InvocationType="Event")
    create(aws, "def handler(e, c): return '\u00e9' * 3_000_000\n", "accents")
    answer, said = invoke(aws, "accents")
    assert "FunctionError" not in answer
    assert said == "\u00e9" * 3_000_000  # six million bytes, and three times as many where each is escaped


def test_a_zip_keeps_within_its_folder_and_its_programs_can_be_run(aws: AWS, tmp_path: Path) -> None:
    source = """
import os, subprocess
def handler(event, context):
    return subprocess.check_output(["./program"], text=True), sorted(os.listdir("."))
"""
    file, outside = io.BytesIO(), tmp_path / "outside"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("lambda_function.py", source)
        archive.writestr("../above", "")
        archive.writestr(str(outside), "")
        program = zipfile.ZipInfo("program")
        program.create_system, program.external_attr = 3, 0o100755 << 16
        archive.writestr(program, "#!/bin/sh\necho here\n")
    create(aws, name="zipped", Code={"ZipFile": file.getvalue()})
    said, found = invoke(aws, "zipped")[1]
    assert said == "here\n"
    assert {"above", "lambda_function.py", "program"} < set(found)
    assert not outside.exists()


def test_what_cannot_be_unpacked_leaves_nothing_behind(tmp_path: Path) -> None:
    with aws_with("good", key_pairs=("a:b",)) as own, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        code = zipped("# " + "x" * 1000).replace(b"xxx", b"xxy", 1)  # another sum than it says
        create(own, name="broken", Code={"ZipFile": code})
        for _ in range(2):
            with pytest.raises(own.client("lambda").exceptions.InvalidZipFileException, match="CRC"):
                invoke(own, "broken")
        assert list(tmp_path.glob("job-runtime-local-functions-*/*")) == []


def test_a_handler_is_looked_for_as_a_module(aws: AWS) -> None:
    create(aws, name="file", Handler="lambda_function.py.handler")
    assert invoke(aws, "file")[1]["errorType"] == "Runtime.ImportModuleError"


def with_lambda(arn: str, **hyperparameters: Any) -> dict[str, Any]:
    document = training(**hyperparameters)
    document["AgentConfig"] = {"CustomAgentLambdaConfig": {"LambdaArn": arn}}
    return document


def test_a_job_s_agent_is_a_function_that_was_created(aws: AWS) -> None:
    with aws_with("never_samples") as own:  # not asked: what was created comes before the agent of all others
        own.prepare()
        source = (
            AGENT
            + "\ndef handler(event, context):\n    print('rollout', event['metadata']['rolloutId'])\n    good(event)\n"
        )
        arn = create(own, source, "agent")
        own.create(with_lambda(arn))
        job = own.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        assert job["Output"]["RolloutInfo"] == {"Total": 4, "Completed": 4}
        rollouts = log_of(own, "agent", lambda lines: sum(line.startswith("END") for line in lines) == 8)
        assert sum(line.startswith("rollout train-") for line in rollouts) == 8


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def handler(e, c):\n    raise ValueError('broken')\n", "the agent raised ValueError: broken"),
        ("import time\ndef handler(e, c): time.sleep(60)\n", "the Lambda function timed out after 1 s"),
        ("import absent\n", "the agent cannot be reached: the agent raised Runtime.ImportModuleError"),
        ("", "the agent raised Runtime.HandlerNotFound: Handler 'handler' missing on module 'lambda_function'"),
    ],
)
def test_a_job_whose_function_fails_says_how(source: str, reason: str) -> None:
    with aws_with("good") as own:
        own.prepare()
        own.create(with_lambda(create(own, source, "agent", Timeout=1), rollout_max_retries=0))
        job = own.ended()
        assert job["JobStatus"] == "Failed"
        assert reason in job["FailureReason"]


def test_a_function_outlives_the_server(database: Any) -> None:
    settings = {"durability": "full", "database": str(database)}
    with aws_with("good", **settings) as own:
        create(own, "def handler(event, context): return 'here'\n", "kept")
        assert invoke(own, "kept")[1] == "here"
    with aws_with("good", **settings) as own:
        assert invoke(own, "kept")[1] == "here"


def test_a_function_s_own_calls_come_here_also_where_signatures_are_verified() -> None:
    source = "import boto3\ndef handler(e, c): return boto3.client('sts').get_caller_identity()['Account']\n"
    with aws_with("good", key_pairs=("a:b",), auth="strict") as own:
        create(own, source, "calling")
        assert invoke(own, "calling")[1] == "123456789012"
