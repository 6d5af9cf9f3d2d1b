"""Rule files behind a running emulator: what clients see, and what is stored."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.raw_client import STREAM, RawClient

RULES = """
seed: 1
default: error
rules:
  - name: busy
    when: {last: busy}
    reply: {error: {status: 429, message: Come again, retry_after: 7}}
  - name: broken
    when: {last: break}
    reply: {content: One two three, break_after: 2}
  - name: row
    when: {row: {level: hard}}
    one_of: ["The answer is {{ row.answer }}.", {content: I give up., weight: 1}]
  - name: turns
    when: {trajectory: count-*}
    replies: [one, two]
    then: loop
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "rules.yaml").write_text(RULES)
    with running_server(Settings(port=0, durability="memory", model=f"scripted:{tmp_path / 'rules.yaml'}")) as server:
        yield server


@pytest.fixture
def client(server: Server, job_arn: str) -> Iterator[RawClient]:
    with RawClient(server.url, job_arn) as client:
        yield client


def body(text: str, **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], **more}).encode()


def said(client: RawClient, trajectory: str, text: str = "Hello") -> str:
    answer = client.sample(trajectory, body(text))
    assert answer.status == 200, answer.body
    content = json.loads(answer.body)["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def management(server: Server, path: str, document: object = None) -> Any:
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(f"{server.url}/_emulator{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or b"null")


def test_a_rollouts_row_decides_and_the_rewards_of_a_group_differ(client: RawClient, server: Server) -> None:
    def run() -> list[str]:
        management(server, "/reset", {})
        heard = []
        for number in range(20):
            registered = {"job_arn": client.job_arn, "trajectory_id": f"rollout-{number}", "group": "g"}
            management(server, "/trajectories", {**registered, "instance": {"level": "hard", "answer": number}})
            heard.append(said(client, f"rollout-{number}"))
        return heard

    heard = run()
    right = [f"The answer is {number}." == text for number, text in enumerate(heard)]
    assert 0 < sum(right) < 20
    assert {text for text, is_right in zip(heard, right, strict=True) if not is_right} == {"I give up."}
    assert run() == heard


def test_a_sequence_belongs_to_a_trajectory_and_a_reset_begins_it_anew(client: RawClient, server: Server) -> None:
    assert [said(client, f"count-{each}") for each in "aabab"] == ["one", "two", "one", "one", "two"]
    said(client, "count-b")
    management(server, "/reset", {})
    assert said(client, "count-b") == "one"


def test_an_error_is_one_of_the_services_own_for_an_aws_client(client: RawClient) -> None:
    answer = client.sample("t", body("busy"))
    assert (answer.status, answer.error, answer.message) == (429, "ThrottlingException", "Come again")
    assert answer.headers["retry-after"] == "7"


def test_and_the_models_own_for_an_openai_client(client: RawClient) -> None:
    headers = {"x-amzn-sagemaker-job-arn": client.job_arn, "x-amzn-sagemaker-trajectory-id": "t"}
    answer = client.call("/v1/chat/completions", body("busy"), headers)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert json.loads(answer.body)["error"]["type"] == "RateLimitError"


def test_an_answer_that_breaks_off_is_stored_as_failed(client: RawClient, server: Server) -> None:
    assert client.sample("t", body("break")).error == "InternalServiceError"
    headers = {"x-amzn-sagemaker-job-arn": client.job_arn, "x-amzn-sagemaker-trajectory-id": "t"}
    with pytest.raises(http.client.HTTPException):
        client.call(STREAM, body("break", stream=True), headers)
    job = client.job_arn.replace("/", "%2F")
    turns = management(server, f"/trajectories/{job}/t")["turns"]
    assert [turn["status"] for turn in turns] == ["failed", "failed"]
    assert all("broke the answer off" in turn["error"] for turn in turns)


def test_a_request_that_no_rule_answers_is_told_why(client: RawClient) -> None:
    answer = client.sample("t", body("Hello"))
    assert (answer.status, answer.error) == (400, "ValidationException")
    assert "3. row: row level: wanted 'hard', found nothing" in answer.message


def test_health_and_info_say_which_rules_answer(server: Server, tmp_path: Path) -> None:
    assert f"4 rules of {tmp_path / 'rules.yaml'}" in management(server, "/health")["detail"]
    (tmp_path / "rules.yaml").write_text("rules: [{rply: x}]")
    assert "did you mean 'reply'" in management(server, "/info")["model_server"]["detail"]
    assert management(server, "/health")["status"] == "ready"


def test_without_a_file_neither_yaml_nor_jinja_is_imported() -> None:
    code = """
import asyncio, sys
from emulator.inference.chosen import make_model_server
from emulator.inference.model_server import ModelRequest
from emulator.settings import Settings
server = make_model_server(Settings())
body = b'{"messages": [{"role": "user", "content": "Hello"}]}'
assert asyncio.run(server.send(ModelRequest("/v1/chat/completions", body))).status == 200
found = {"yaml", "jinja2", "difflib"} & sys.modules.keys()
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
