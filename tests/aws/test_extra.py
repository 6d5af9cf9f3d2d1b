"""moto is an extra: loaded when it is first needed, and named where it is missing."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent


def run(script: str) -> str:
    """Run a script in a Python of its own; what it prints."""
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


SERVER = """
import sys
from emulator.testing import running_server
"""

CLIENT = """
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

def client(service):
    return boto3.client(
        service, endpoint_url=server.url, region_name="us-west-2", aws_access_key_id="a", aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )
"""


def test_what_is_around_the_runtime_is_imported_by_the_first_request_for_it() -> None:
    script = f"""{SERVER}
import urllib.request

def imported():
    print(*sorted({{"botocore", "emulator.surroundings", "moto", "starlette.applications"}} & sys.modules.keys()))

with running_server() as server:
    arn = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/j"
    headers = {{"X-Amzn-SageMaker-Job-Arn": arn, "X-Amzn-SageMaker-Trajectory-Id": "t"}}
    body = b'{{"messages": [{{"role": "user", "content": "hi"}}]}}'
    urllib.request.urlopen(urllib.request.Request(server.url + "/sample", body, headers)).close()
    imported()
    urllib.request.urlopen(server.url + "/_emulator/health").close()
    imported()
"""
    assert run(script).splitlines() == ["", "emulator.surroundings starlette.applications"]


def test_without_moto_an_error_names_the_extra_in_each_protocol() -> None:
    script = f"""{SERVER}{CLIENT}
sys.modules["moto"] = None  # as if it were not installed
with running_server() as server:
    for service, operation in (("s3", "list_buckets"), ("sts", "get_caller_identity"), ("logs", "describe_log_groups")):
        try:
            getattr(client(service), operation)()
        except ClientError as error:
            print(error.response["Error"]["Code"], "job-runtime-local[aws]" in error.response["Error"]["Message"])
    print(len(client("sagemaker").list_mlflow_apps()["Summaries"]))
"""
    assert run(script).split("\n")[:4] == ["ExtraMissing True", "ExtraMissing True", "ExtraMissing True", "1"]


def test_moto_says_nothing_on_standard_output() -> None:
    script = f"""{SERVER}{CLIENT}
with running_server() as server:
    client("s3").list_buckets()
    for service, operation in (("workmail", "list_organizations"), ("sagemaker", "list_mlflow_tracking_servers")):
        try:
            getattr(client(service), operation)()
        except ClientError:
            pass
"""
    assert run(script) == ""
