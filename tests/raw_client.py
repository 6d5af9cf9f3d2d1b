"""A client that hides nothing: exact bytes out, status, headers and exact bytes in, over one kept connection."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

SAMPLE = "/sample"
STREAM = "/sample-with-response-stream"
CHAT = "/v1/chat/completions"
COMPLETE = "/complete-rollout"
REWARD = "/update-reward"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> str | None:
        """The error's name, as AWS clients read it."""
        return self.headers.get("x-amzn-errortype")

    @property
    def message(self) -> str:
        """The error's message."""
        text = json.loads(self.body)["Message"]
        assert isinstance(text, str)
        return text


class RawClient:
    """Calls operations of one job; not to be shared between threads."""

    def __init__(self, url: str, job_arn: str, *, timeout: float = 60) -> None:
        self.job_arn = job_arn
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def call(
        self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, method: str = "POST"
    ) -> Reply:
        """Send a request and read its whole answer. Raises OSError or HTTPException for one that breaks off."""
        return self._read(self.begin(path, body, headers, method))

    def _read(self, response: http.client.HTTPResponse) -> Reply:
        try:
            return Reply(response.status, headers_of(response), response.read())
        except BaseException:
            self._connection.close()
            raise

    def begin(
        self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, method: str = "POST"
    ) -> http.client.HTTPResponse:
        """Send a request and read the head of its answer."""
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            return self._connection.getresponse()
        except BaseException:
            self._connection.close()
            raise

    def send_only(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a request, and leave its answer unread."""
        self._connection.request("POST", path, body, dict(headers))

    def send_half(self, path: str, headers: Mapping[str, str]) -> None:
        """Send a request whose body does not come."""
        self._connection.putrequest("POST", path)
        for name, value in {**headers, "Content-Length": "100"}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(b"{")

    def head(self) -> http.client.HTTPResponse:
        """Read the head of the answer to what `send_only` sent."""
        return self._connection.getresponse()

    def receive(self) -> Reply:
        """Read the answer to what `send_only` sent."""
        return self._read(self._connection.getresponse())

    def receive_some(self, count: int) -> None:
        """Read the first bytes of the answer to what `send_only` sent, and no more."""
        with contextlib.suppress(http.client.IncompleteRead):
            self._connection.getresponse().read(count)

    def close(self) -> None:
        """Go away, whatever is under way."""
        self._connection.close()

    def sample_headers(self, trajectory_id: str) -> dict[str, str]:
        """What names the job and the trajectory of a sample."""
        return {
            "X-Amzn-SageMaker-Job-Arn": self.job_arn,
            "X-Amzn-SageMaker-Trajectory-Id": trajectory_id,
            "Content-Type": "application/json",
        }

    def sample(self, trajectory_id: str, body: bytes, path: str = SAMPLE) -> Reply:
        """One turn, whichever of the sampling paths it takes."""
        return self.call(path, body, self.sample_headers(trajectory_id))

    def complete(self, trajectory_id: str, status: str | None = None, token: str | None = None) -> Reply:
        """CompleteRollout."""
        return self._json(COMPLETE, {"TrajectoryId": trajectory_id, "Status": status, "ClientToken": token})

    def reward(self, trajectory_id: str, rewards: Sequence[Any], token: str | None = None) -> Reply:
        """UpdateReward."""
        return self._json(REWARD, {"TrajectoryId": trajectory_id, "Rewards": list(rewards), "ClientToken": token})

    def _json(self, path: str, members: Mapping[str, Any]) -> Reply:
        document = {name: value for name, value in members.items() if value is not None}
        headers = {"X-Amzn-SageMaker-Job-Arn": self.job_arn, "Content-Type": "application/json"}
        return self.call(path, json.dumps(document).encode(), headers)


def headers_of(response: http.client.HTTPResponse) -> dict[str, str]:
    """Header fields, names in lower case."""
    return {name.lower(): value for name, value in response.getheaders()}


def check_shape(reply: Reply, openai: bool = False) -> dict[str, Any]:
    """What every error has in common."""
    assert reply.status >= 400
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-amzn-requestid"]
    document: dict[str, Any] = json.loads(reply.body)
    assert 0 < len(document["Message"]) <= 1024
    if openai:
        shape = {"message": document["Message"], "type": reply.error, "code": reply.error}
        assert document == {"Message": document["Message"], "error": shape}
    else:
        assert document.keys() == {"Message"}
    return document


def check_error(reply: Reply, status: int, error: str, openai: bool = False) -> str:
    """Whether it is this error, and its message."""
    assert (reply.status, reply.error) == (status, error), reply.body
    message = check_shape(reply, openai)["Message"]
    assert isinstance(message, str)
    return message
