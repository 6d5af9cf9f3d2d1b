"""`aws sagemakerjobruntime …` does a whole rollout."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from emulator.server import Server
from tests.clients.environments import client_variables, program
from tests.clients.question import ANSWER
from tests.clients.rollouts import Conversation, message_of, stored_rollout

#: How versions 1 and 2 say that the service refused.
REFUSED = {255, 254}


class CLI:
    """The AWS CLI for one trajectory, with files for what is sent and received."""

    def __init__(self, url: str, job_arn: str, trajectory_id: str, folder: Path) -> None:
        options = ["--endpoint-url", url, "--output", "json"]
        self._command = [str(program("awscli", "aws")), *options, "sagemakerjobruntime"]
        self._key = ["--job-arn", job_arn, "--trajectory-id", trajectory_id]
        self._sent, self._received = folder / "request.json", folder / "answer"

    def run(self, operation: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call an operation, whatever becomes of it."""
        command = [*self._command, operation, *self._key, *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=client_variables() | {"AWS_MAX_ATTEMPTS": "1"},
        )

    def sample(self, operation: str, request: bytes) -> bytes:
        """Call a sampling operation; what it wrote to its outfile."""
        self._sent.write_bytes(request)
        self._received.unlink(missing_ok=True)
        done = self.run(operation, "--body", self._sent.as_uri().replace("file:", "fileb:"), str(self._received))
        assert (done.returncode, done.stderr) == (0, "")
        expected = "text/event-stream; charset=utf-8" if operation.endswith("stream") else "application/json"
        assert json.loads(done.stdout) == {"ContentType": expected}
        return self._received.read_bytes()


@pytest.fixture
def cli(server: Server, job_arn: str, tmp_path: Path) -> CLI:
    return CLI(server.url, job_arn, "from-a-shell", tmp_path)


def test_the_cli_does_a_whole_rollout(cli: CLI, database: Path) -> None:
    conversation, exchanges = Conversation(), []
    for operation in ("sample", "sample-with-response-stream", "sample"):
        request = conversation.request(stream=operation.endswith("stream"))
        exchanges.append((request, cli.sample(operation, request)))
        conversation.take(message_of(*exchanges[-1], ""))
    assert conversation.answer == ANSWER
    for operation, arguments in (
        ("complete-rollout", ["--status", "ready"]),
        ("update-reward", ["--rewards", "0.25", "0", "1"]),
    ):
        done = cli.run(operation, *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    rollout = stored_rollout(database, "from-a-shell")
    rollout.assert_whole_rollout()
    assert rollout.exchanges == exchanges
    assert rollout.state == ("reward-received", "ready", [0.25, 0.0, 1.0], True)


def test_the_cli_says_which_error_it_was_and_why(cli: CLI) -> None:
    refused = cli.run("complete-rollout")
    assert refused.returncode in REFUSED
    assert "(ResourceNotFoundException) when calling the CompleteRollout operation" in refused.stderr
    assert "Trajectory from-a-shell was not found" in refused.stderr
