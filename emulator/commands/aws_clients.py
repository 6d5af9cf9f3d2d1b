"""botocore's clients of a running emulator, and its errors as a command's."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from emulator.commands import Refused, read_settings
from emulator.commands.endpoint import ask_server, endpoint_of, place_of
from emulator.offline.environment import REMOVED


class Clients:
    """Those of one command."""

    def __init__(self, given: argparse.Namespace) -> None:
        """`given` with `endpoint` and `config`. Raises Refused, where no emulator answers too."""
        settings = read_settings({}, given.config)
        url = endpoint_of(given, settings)
        told = ask_server(url)
        if told is None:
            raise Refused(
                f"there is no emulator at {url}: `job-runtime-local serve` starts one, --endpoint names another"
            )
        self.place = place_of(url, settings, told)
        self._clients: dict[str, Any] = {}

    def call(self, service: str, operation: str, **members: Any) -> dict[str, Any]:
        """What an operation answers. Raises Refused with its error."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._client(service), operation)(**members)
        except ClientError as error:
            raise Refused(f"{error.response['Error']['Code']}: {error.response['Error']['Message']}") from None
        except BotoCoreError as error:
            raise Refused(" ".join(str(error).split())) from None
        return answer

    def describe(self, category: str, name: str) -> dict[str, Any]:
        """DescribeJob. Raises Refused."""
        return self.call("sagemaker", "describe_job", JobCategory=category, JobName=name)

    def exists(self, category: str, name: str) -> bool:
        """Whether there is such a job. Raises Refused."""
        try:
            self.describe(category, name)
        except Refused as error:
            if str(error).startswith("ResourceNotFound:"):
                return False
            raise
        return True

    def log_streams(self, group: str, prefix: str) -> list[str]:
        """The streams of a job's log; none if it has written nothing. Raises Refused."""
        try:
            found = self.call("logs", "describe_log_streams", logGroupName=group, logStreamNamePrefix=prefix)
        except Refused as error:
            if str(error).startswith("ResourceNotFoundException:"):
                return []
            raise
        return [stream["logStreamName"] for stream in found["logStreams"]]

    def log_events(self, group: str, stream: str, tokens: dict[str, str]) -> Iterator[dict[str, Any]]:
        """What a stream has that was not read yet; `tokens` remembers. Raises Refused."""
        while True:
            more = {"nextToken": tokens[stream]} if stream in tokens else {}
            page = self.call(
                "logs", "get_log_events", logGroupName=group, logStreamName=stream, startFromHead=True, **more
            )
            yield from page["events"]
            if not page["events"]:
                return
            tokens[stream] = page["nextForwardToken"]

    def _client(self, service: str) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        if service not in self._clients:
            for name in REMOVED:  # a profile that there is not would be an error
                os.environ.pop(name, None)
            key_id, secret = self.place.keys
            self._clients[service] = Session().create_client(
                service,
                endpoint_url=self.place.url,
                region_name=self.place.region,
                aws_access_key_id=key_id,
                aws_secret_access_key=secret,
                config=Config(retries={"total_max_attempts": 2}, proxies={}),
            )
        return self._clients[service]
