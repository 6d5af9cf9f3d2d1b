"""A server, and clients of boto3 for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server

REGION = "us-west-2"
ACCOUNT = "123456789012"
KEY, SECRET = "AKIDEXAMPLE", "a-secret"


def client(server: Server | str, service: str, *, secret: str = SECRET, **config: Any) -> Any:
    """A client of boto3."""
    return boto3.client(
        service,
        endpoint_url=server if isinstance(server, str) else server.url,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


def make_bucket(s3: Any, name: str = "bucket") -> None:
    """A bucket."""
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})


def refused(call: Any, code: str, status: int = 400) -> str:
    """The message of an error, which is the one that is expected."""
    with pytest.raises(ClientError) as error:
        call()
    assert error.value.response["Error"]["Code"] == code
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    return str(error.value.response["Error"]["Message"])


@pytest.fixture(scope="module")
def aws() -> Iterator[Server]:
    """A server for the tests of a module, which use names of their own."""
    with running_server(Settings(port=0, durability="memory")) as server:
        yield server
