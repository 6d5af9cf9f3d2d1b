"""The rest of AWS, to a job: S3, CloudWatch Logs and model packages, behind an endpoint on this machine."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from emulator.job_config import JobConfig
from emulator.trainer.datasets import DatasetError, read_dataset
from emulator.trainer.jobs.services import JobFailed
from emulator.trainer.rollouts import Row

T = TypeVar("T")

#: What names an endpoint of each service, before `AWS_ENDPOINT_URL` and the emulator's own.
_VARIABLES = {
    "s3": "AWS_ENDPOINT_URL_S3",
    "logs": "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS",
    "sagemaker": "AWS_ENDPOINT_URL_SAGEMAKER",
}


class AWS:
    """A `Cloud` behind endpoints: those of the environment, else the emulator's own, which the extra `aws` serves."""

    def __init__(self, endpoint: str, region: str, keys: tuple[str, str]) -> None:
        """`keys`: access key id and secret, where the endpoint is the emulator's own."""
        self._endpoint = endpoint
        self._region = region
        self._keys = keys
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    async def read_dataset(self, uri: str) -> list[Row]:
        """As the protocol has it."""
        if not uri.startswith("s3://"):
            raise JobFailed(f"ClientError: {uri}: only S3 URIs can be read here")
        try:
            return await _in_thread(lambda: read_dataset(uri, s3=self._client("s3")))
        except DatasetError as error:
            raise JobFailed(f"ClientError: {error}") from None

    async def check_outputs(self, config: JobConfig) -> None:
        """As the protocol has it."""
        uri = config.output_path
        bucket, key = _place(uri)
        await self._call(uri, lambda: self._client("s3").list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1))
        needed = [config.output_group_arn]
        needed += [config.checkpoint_group_arn] if config.hyperparameters.get("save_every") else []

        def find_group(arn: str) -> None:
            self._client("sagemaker").describe_model_package_group(ModelPackageGroupName=_group_name(arn))

        for arn in filter(None, needed):
            await self._call(arn, partial(find_group, arn))

    async def put(self, uri: str, content: bytes) -> None:
        """As the protocol has it."""
        bucket, key = _place(uri)
        await self._call(uri, lambda: self._client("s3").put_object(Bucket=bucket, Key=key, Body=content))

    async def log(self, group: str, stream: str, lines: Sequence[tuple[int, str]]) -> None:
        """As the protocol has it."""
        events = [{"timestamp": time // 1000, "message": text} for time, text in lines]

        def write() -> None:
            logs = self._client("logs")
            put = partial(logs.put_log_events, logGroupName=group, logStreamName=stream, logEvents=events)
            try:
                put()
            except logs.exceptions.ResourceNotFoundException:
                _unless_there(logs, "create_log_group", logGroupName=group)
                _unless_there(logs, "create_log_stream", logGroupName=group, logStreamName=stream)
                put()

        await self._call(f"{group} {stream}", write)

    async def create_model_package(self, group_arn: str, *, model_uri: str, config: JobConfig, note: str) -> str:
        """As the protocol has it."""

        def create() -> str:
            arn: str = self._client("sagemaker").create_model_package(
                ModelPackageGroupName=_group_name(group_arn),
                ModelPackageDescription=note[:1024],
                ModelApprovalStatus="PendingManualApproval",
                InferenceSpecification={
                    "Containers": [
                        {
                            "Image": "none",
                            "ModelDataSource": {
                                "S3DataSource": {
                                    "S3Uri": model_uri + "/",
                                    "S3DataType": "S3Prefix",
                                    "CompressionType": "None",
                                }
                            },
                            "BaseModel": _base_model(config.base_model_arn),
                        }
                    ],
                    "SupportedContentTypes": ["application/json"],
                    "SupportedResponseMIMETypes": ["application/json"],
                },
            )["ModelPackageArn"]
            return arn

        return await self._call(group_arn, create)

    async def find_pipeline(self, name: str) -> tuple[str, str] | None:
        """A pipeline's ARN and definition; None if there is none. Raises botocore's errors."""
        from botocore.exceptions import ClientError

        try:
            found = await _in_thread(lambda: self._client("sagemaker").describe_pipeline(PipelineName=name))
        except ClientError as error:
            # moto 5.2.5 says ValidationException, and AWS ResourceNotFound.
            if error.response.get("Error", {}).get("Code") in {"ValidationException", "ResourceNotFound"}:
                return None
            raise
        return found["PipelineArn"], found["PipelineDefinition"]

    async def create_lineage(self, kind: str, members: Mapping[str, Any]) -> str:
        """Create an action, an artifact or a context; its ARN. One that is there already is as good.

        Raises JobFailed.
        """
        name = members[f"{kind}Name"]

        def create() -> str:
            client = self._client("sagemaker")
            try:
                arn: str = getattr(client, f"create_{kind.lower()}")(**members)[f"{kind}Arn"]
            except client.exceptions.ClientError as error:
                if kind == "Artifact" or error.response.get("Error", {}).get("Code") != "ValidationException":
                    raise
                arn = getattr(client, f"describe_{kind.lower()}")(**{f"{kind}Name": name})[f"{kind}Arn"]
            return arn

        return await self._call(f"{kind} {name}", create)

    async def associate(self, source_arn: str, destination_arn: str, kind: str) -> None:
        """Say that something came of something else. Raises JobFailed."""
        await self._call(
            f"{source_arn} {kind} {destination_arn}",
            lambda: self._client("sagemaker").add_association(
                SourceArn=source_arn, DestinationArn=destination_arn, AssociationType=kind
            ),
        )

    async def _call(self, what: str, call: Callable[[], T]) -> T:
        """Call botocore in a thread. Raises JobFailed."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return await _in_thread(call)
        except ClientError as error:
            problem = error.response.get("Error", {})
            raise JobFailed(f"ClientError: {what}: {problem.get('Code')}: {problem.get('Message')}") from None
        except BotoCoreError as error:
            raise JobFailed(f"ClientError: {what}: {error}") from None

    def _client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._make_client(service)
            return self._clients[service]

    def _make_client(self, service: str) -> Any:
        import botocore.session
        from botocore.config import Config

        session = botocore.session.get_session()
        elsewhere = os.environ.get(_VARIABLES[service]) or os.environ.get("AWS_ENDPOINT_URL")
        keys = {} if elsewhere else dict(zip(("aws_access_key_id", "aws_secret_access_key"), self._keys, strict=True))
        return session.create_client(
            service,
            region_name=self._region,
            endpoint_url=elsewhere or self._endpoint,
            config=Config(retries={"total_max_attempts": 2}, connect_timeout=5, s3={"addressing_style": "path"}),
            **keys,
        )


def _place(uri: str) -> tuple[str, str]:
    """Bucket and key, whatever characters it has. Raises JobFailed."""
    scheme, _, place = uri.partition("://")
    if scheme != "s3":
        raise JobFailed(f"ClientError: {uri}: results are written to S3 URIs alone here: s3://BUCKET/PREFIX")
    bucket, _, key = place.partition("/")
    return bucket, key.lstrip("/")


def _group_name(arn: str) -> str:
    return arn.rpartition("/")[2]


async def _in_thread(call: Callable[[], T]) -> T:
    """Call it in a thread of its own, which nobody waits for at the end: an S3 elsewhere may never answer."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if not future.done():  # else nobody waits any longer
            set_outcome(outcome)

    def run() -> None:
        try:
            told = partial(finish, future.set_result, call())
        except Exception as error:
            told = partial(finish, future.set_exception, error)
        with suppress(RuntimeError):  # the event loop is gone
            loop.call_soon_threadsafe(told)

    threading.Thread(target=copy_context().run, args=(run,), name="job-aws", daemon=True).start()
    return await future


def _unless_there(client: Any, operation: str, **names: str) -> None:
    try:
        getattr(client, operation)(**names)
    except client.exceptions.ResourceAlreadyExistsException:
        return


def _base_model(arn: str) -> dict[str, str]:
    """What a model package says of its base: of `…:hub-content/HUB/Model/NAME/VERSION` the name and the version."""
    parts = arn.split("/")
    if len(parts) >= 5 and parts[0].endswith("hub-content"):
        return {"HubContentName": parts[3], "HubContentVersion": parts[4]}
    return {"HubContentName": parts[-1]}
