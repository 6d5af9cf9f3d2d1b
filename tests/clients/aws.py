"""A boto3 client that also checks each answer it gets against the service model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config

from tests.clients.rollouts import KEY_ID, REGION, SECRET

SERVICE = "sagemakerjobruntime"


@contextmanager
def runtime_client(
    url: str,
    *,
    signed: bool = True,
    attempts: int | None = 1,
    mode: str = "standard",
    read_timeout: float = 60,
    **given: str,
) -> Iterator[Any]:
    """A client of the runtime with these keys; it tries once, unless told otherwise. `attempts` None: as boto3 does."""
    config = Config(
        retries={"mode": mode} if attempts is None else {"total_max_attempts": attempts, "mode": mode},
        signature_version=None if signed else UNSIGNED,
        read_timeout=read_timeout,
    )
    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": REGION}
    client = _session().client(SERVICE, endpoint_url=url, config=config, **{**keys, **given})
    client.meta.events.register(f"after-call.{SERVICE}", conforms)
    try:
        yield client
    finally:
        client.close()


@cache
def _session() -> boto3.session.Session:
    """One for all: the service model takes longer to load than most tests to run."""
    return boto3.session.Session()


def conforms(*, http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Assert that an answer is one that its operation models, as botocore's own parser reads it."""
    assert parsed["ResponseMetadata"]["RequestId"]
    members = parsed.keys() - {"ResponseMetadata"}
    if http_response.status_code == 200:
        expected = set(model.output_shape.members) if model.output_shape else set()
        assert members == expected, f"{model.name} answered with {members}"
        return
    errors = {shape.name: shape for shape in model.error_shapes}
    code = parsed["Error"]["Code"]
    assert code in errors, f"{model.name} models no {code}"
    assert errors[code].metadata["error"]["httpStatusCode"] == http_response.status_code
    # What the generic reading of an error found, and what the error's own shape says.
    assert parsed["Error"]["Message"] == parsed["Message"]
    assert 0 < len(parsed["Message"]) <= 1024
