"""`s3://` by way of the endpoint that the environment, or the AWS configuration, names; never by default AWS itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from emulator.trainer.datasets import DatasetError


def read_objects(url: str, endings: tuple[str, ...], given: Any = None) -> Iterator[tuple[str, bytes]]:
    """The object of that key, or else those whose keys begin so and have such an ending.

    `given`: a client, which stays open, in place of one as the environment has it. Raises DatasetError.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    parts = urlsplit(url, allow_fragments=False)
    bucket, key = parts.netloc, url.removeprefix(f"s3://{parts.netloc}").lstrip("/")
    if not bucket:
        raise DatasetError(f"{url}: names no bucket: s3://BUCKET/KEY")
    client = given or _client(url)
    try:
        for found in _keys(client, bucket, key, endings):
            yield f"s3://{bucket}/{found}", client.get_object(Bucket=bucket, Key=found)["Body"].read()
    except ClientError as error:
        problem = error.response.get("Error", {})
        raise DatasetError(f"{url}: {problem.get('Code')}: {problem.get('Message')}") from None
    except BotoCoreError as error:
        raise DatasetError(f"{url}: {' '.join(str(error).split())}") from None
    finally:
        if client is not given:
            client.close()


def _keys(client: Any, bucket: str, key: str, endings: tuple[str, ...]) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
    keys = sorted(each["Key"] for page in pages for each in page.get("Contents", ()))
    if key in keys and not key.endswith("/"):  # else it is what stands for a folder
        return [key]
    readable = [each for each in keys if PurePosixPath(each).suffix.lower() in endings]
    if not readable:
        count = (
            f"{len(keys)} objects begin so, of which none ends with {', '.join(endings)}" if keys else "no such object"
        )
        raise DatasetError(f"s3://{bucket}/{key}: {count}")
    return readable


def _client(url: str) -> Any:
    """A client of S3. Raises DatasetError where no endpoint is configured."""
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    session = botocore.session.get_session()
    try:
        if not _names_endpoint(session.get_scoped_config(), session.full_config):
            raise DatasetError(
                f"{url}: no endpoint is configured: AWS_ENDPOINT_URL_S3 names that of a local S3, "
                "or AWS's own where that is what you mean"
            )
        providers = session.get_component("credential_provider")
        for name in ("container-role", "iam-role"):  # they would ask addresses of a cloud that is not there
            providers.remove(name)
        keys = {}
        if session.get_credentials() is None:
            keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        return session.create_client(
            "s3",
            region_name=session.get_config_variable("region") or "us-west-2",
            config=Config(retries={"total_max_attempts": 3}, connect_timeout=5, s3={"addressing_style": "path"}),
            **keys,
        )
    except (BotoCoreError, ValueError) as error:
        raise DatasetError(f"{url}: {error}") from None


def _names_endpoint(profile: Mapping[str, Any], configuration: Mapping[str, Any]) -> bool:
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or profile.get("endpoint_url"):
        return True
    services = configuration.get("services", {}).get(profile.get("services"), {})
    return bool(services.get("s3", {}).get("endpoint_url"))
