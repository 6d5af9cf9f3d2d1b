"""AgentCore runtimes answer from the map of agents, beside those that were made with CreateAgentRuntime."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.jobs import agents
from tests.jobs.conftest import AWS, aws_with, training

RUNTIME = "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/my_agent-abcdefghij"
OTHER = "arn:aws:bedrock-agentcore:us-west-2:123456789012:runtime/python_one-0123456789"

#: Of sagemaker-train 1.27.0: what its trainer takes.
TRAINERS_PATTERN = r"arn:aws:bedrock-agentcore:[a-z0-9-]+:\d{12}:runtime/[A-Za-z0-9_-]+"


class _App(BaseHTTPRequestHandler):
    """An AgentCore app that does the rollout of its payload, or says what it was sent."""

    def do_GET(self) -> None:
        self._answer(200, {"status": "Healthy"})

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if payload.get("fail"):
            self._answer(500, {"error": "broken"})
        elif "metadata" in payload:
            agents.good(payload)
            self._answer(200, {"status": "success"})
        else:
            session = self.headers["X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"]
            self._answer(200, {"path": self.path, "session": session, "payload": payload})

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def app() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _App)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def aws() -> Iterator[AWS]:
    with app() as url:
        mapped = (f"{RUNTIME}=agentcore:{url}", f"{OTHER}=python:tests.jobs.agents:good")
        with aws_with("good", agents=mapped) as found:
            yield found


def create_runtime(aws: AWS, name: str = "made") -> dict[str, Any]:
    made: dict[str, Any] = aws.client("bedrock-agentcore-control").create_agent_runtime(
        agentRuntimeName=name,
        agentRuntimeArtifact={
            "containerConfiguration": {"containerUri": "123456789012.dkr.ecr.us-west-2.amazonaws.com/a:1"}
        },
        networkConfiguration={"networkMode": "PUBLIC"},
        roleArn="arn:aws:iam::123456789012:role/r",
    )
    return made


def test_runtimes_of_the_map_are_listed_beside_those_that_were_made(aws: AWS) -> None:
    client = aws.client("bedrock-agentcore-control")
    made = create_runtime(aws)
    listed = client.list_agent_runtimes()["agentRuntimes"]
    assert [each["agentRuntimeArn"] for each in listed] == [RUNTIME, OTHER, made["agentRuntimeArn"]]
    assert all(re.fullmatch(TRAINERS_PATTERN, each["agentRuntimeArn"]) for each in listed)
    assert [each["agentRuntimeName"] for each in listed] == ["my_agent", "python_one", "made"]
    assert made["agentRuntimeArn"].endswith(f"runtime/{made['agentRuntimeId']}")
    client.update_agent_runtime(
        agentRuntimeId=made["agentRuntimeId"],
        agentRuntimeArtifact={
            "containerConfiguration": {"containerUri": "123456789012.dkr.ecr.us-west-2.amazonaws.com/a:2"}
        },
        networkConfiguration={"networkMode": "PUBLIC"},
        roleArn="arn:aws:iam::123456789012:role/r",
    )
    again = client.get_agent_runtime(agentRuntimeId=made["agentRuntimeId"])
    assert (again["agentRuntimeArn"], again["agentRuntimeVersion"]) == (made["agentRuntimeArn"], "2")


def test_a_runtime_of_the_map_is_found_by_its_id(aws: AWS) -> None:
    client = aws.client("bedrock-agentcore-control")
    found = client.get_agent_runtime(agentRuntimeId="my_agent-abcdefghij")
    assert (found["agentRuntimeArn"], found["status"]) == (RUNTIME, "READY")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_agent_runtime(agentRuntimeId="absent-abcdefghij")


@pytest.mark.parametrize("qualifier", [{}, {"qualifier": "DEFAULT"}])
def test_a_runtime_is_invoked_with_its_session(aws: AWS, qualifier: dict[str, str]) -> None:
    session = "a-session-of-more-than-33-characters"
    answer = aws.client("bedrock-agentcore").invoke_agent_runtime(
        agentRuntimeArn=RUNTIME, runtimeSessionId=session, payload=b'{"a": 1}', **qualifier
    )
    assert (answer["statusCode"], answer["runtimeSessionId"], answer["contentType"]) == (
        200,
        session,
        "application/json",
    )
    assert json.loads(answer["response"].read()) == {"path": "/invocations", "session": session, "payload": {"a": 1}}
    answer = aws.client("bedrock-agentcore").invoke_agent_runtime(agentRuntimeArn=RUNTIME, payload=b"{}")
    assert json.loads(answer["response"].read())["session"] == answer["runtimeSessionId"]


def test_what_goes_wrong_with_an_invocation_is_said(aws: AWS) -> None:
    client = aws.client("bedrock-agentcore")
    with pytest.raises(client.exceptions.RuntimeClientError, match=r"Received error \(500\) from runtime"):
        client.invoke_agent_runtime(agentRuntimeArn=RUNTIME, payload=b'{"fail": true}')
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="start the server with --agent"):
        client.invoke_agent_runtime(agentRuntimeArn=RUNTIME.replace("my_", "your_"), payload=b"{}")
    with pytest.raises(client.exceptions.RuntimeClientError, match="KeyError"):
        client.invoke_agent_runtime(agentRuntimeArn=OTHER, payload=b"{}")


def test_a_job_s_agent_is_a_runtime_of_the_map() -> None:
    with (
        app() as url,
        aws_with("good", agents=(f"{RUNTIME}=agentcore:{url}", "python:tests.jobs.agents:raises")) as aws,
    ):
        aws.prepare()
        document = training()
        document["AgentConfig"] = {"BedrockAgentCoreConfig": {"AgentRuntimeArn": RUNTIME, "Qualifier": "DEFAULT"}}
        aws.create(document)
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
