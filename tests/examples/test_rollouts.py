"""Each example does whole rollouts against the embedded model, asked as a trainer asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from emulator.server import Server
from emulator.store import queries
from emulator.store.database import read_engine
from emulator.store.queries import TrajectoryRecord, TurnRecord
from emulator.trajectory import Status, TurnStatus
from examples import lambda_forwarder, openai_tools
from tests.clients.rollouts import REGION
from tests.conftest import JOB_ARN
from tests.stored import eventually, stored

PROMPT, ANSWER = "What is 12 * 7?", "84"


def sdk_request(url: str, trajectory_id: str) -> dict[str, Any]:
    """As the SageMaker SDK spells it."""
    return {
        "instance": {"prompt": PROMPT, "answer": ANSWER},
        "metadata": {"job_arn": JOB_ARN, "trajectory_id": trajectory_id, "endpoint": url, "region": REGION},
        "inference_params": {"temperature": 0.5, "max_tokens": 200, "top_p": 0.75},
    }


def documented_request(url: str, trajectory_id: str) -> dict[str, Any]:
    """As the service's documentation spells it."""
    return {
        "prompt": PROMPT,
        "metadata": {"jobArn": JOB_ARN, "rolloutId": trajectory_id, "endpoint": url, "region": REGION},
        "inferenceParams": {"temperature": 0.5, "maxTokens": 200, "topP": 0.75},
    }


@pytest.fixture
def trajectory_id() -> str:
    return str(uuid4())


def wait_for_reward(database: Path, trajectory_id: str) -> None:
    """An agent that has answered may be still at work."""

    def found() -> bool:
        with read_engine(database).connect() as connection:
            trajectories = queries.find_trajectories(connection, trajectory_id)
        return [each.status for each in trajectories] == [Status.REWARD_RECEIVED]

    eventually(found, "the reward")


def rewarded(database: Path, trajectory_id: str) -> tuple[TrajectoryRecord, list[TurnRecord]]:
    """The rollout, once its agent has rewarded it. Each turn was sampled with the parameters of the request."""

    wait_for_reward(database, trajectory_id)
    trajectory, turns = stored(database, trajectory_id)
    assert (trajectory.job_arn, trajectory.completion, trajectory.eligible) == (JOB_ARN, Status.READY, True)
    assert {turn.status for turn in turns} == {TurnStatus.COMPLETED}
    for turn in turns:
        request = json.loads(turn.request)
        limit = request.get("max_tokens", request.get("max_completion_tokens"))  # the latter is LangChain's
        assert (request["temperature"], limit, request["top_p"]) == (0.5, 200, 0.75)
    return trajectory, turns


@pytest.mark.parametrize("name", ["openai_agents", "langchain_agent", "strands_handler"])
def test_a_rollout_server_lets_the_model_use_its_tool_and_rewards_the_answer(
    name: str, example: Callable[[str], str], server: Server, database: Path, trajectory_id: str
) -> None:
    agent = example(name)
    assert httpx2.get(f"{agent}/health").json() == {"status": "healthy"}
    answer = httpx2.post(f"{agent}/rollout", json=sdk_request(server.url, trajectory_id), timeout=60)
    assert answer.is_success, answer.text
    trajectory, turns = rewarded(database, trajectory_id)
    assert (trajectory.rewards, len(turns)) == ([1.0], 2)


def test_the_agent_on_boto3_streams_and_gets_no_reward_for_the_embedded_models_excuses(
    example: Callable[[str], str], server: Server, database: Path, trajectory_id: str
) -> None:
    agent = example("boto3_streaming")
    assert httpx2.get(f"{agent}/health").json() == {"status": "healthy"}
    answer = httpx2.post(f"{agent}/rollout", json=sdk_request(server.url, trajectory_id))
    assert answer.status_code == 202
    trajectory, (turn,) = rewarded(database, trajectory_id)
    assert trajectory.rewards == [0.0]
    assert (turn.content_type or "").startswith("text/event-stream")


def test_the_agentcore_app_answers_a_ping_and_takes_the_documented_form(
    example: Callable[[str], str], server: Server, database: Path, trajectory_id: str
) -> None:
    agent = example("agentcore_app")
    assert httpx2.get(f"{agent}/ping").json()["status"] == "Healthy"
    session = {"X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": trajectory_id}
    request = documented_request(server.url, trajectory_id)
    answer = httpx2.post(f"{agent}/invocations", json=request, headers=session, timeout=60)
    assert answer.json() == {"status": "ready", "reward": 1.0}
    trajectory, turns = rewarded(database, trajectory_id)
    assert (trajectory.rewards, len(turns)) == ([1.0], 2)


@pytest.mark.usefixtures("client_environment")
def test_a_plain_function_does_a_rollout(server: Server, database: Path, trajectory_id: str) -> None:
    assert openai_tools.roll_out(sdk_request(server.url, trajectory_id)) == 1.0
    trajectory, turns = rewarded(database, trajectory_id)
    assert (trajectory.rewards, len(turns)) == ([1.0], 2)


@pytest.mark.parametrize("wrap", [lambda event: event, lambda event: {"body": json.dumps(event)}])
def test_the_lambda_function_hands_a_rollout_on(
    wrap: Callable[[dict[str, Any]], dict[str, Any]],
    example: Callable[[str], str],
    server: Server,
    database: Path,
    trajectory_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENT_URL", f"{example('boto3_streaming')}/rollout")
    event = wrap(documented_request(server.url, trajectory_id))
    assert lambda_forwarder.handler(event, None) == {"statusCode": 202}
    rewarded(database, trajectory_id)


def test_the_lambda_function_refuses_what_is_no_rollout_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_URL", "http://127.0.0.1:9/rollout")
    for event in ({}, {"prompt": PROMPT}, {"body": "?"}, {"prompt": PROMPT, "metadata": {"region": REGION}}):
        assert lambda_forwarder.handler(event, None)["errorType"] == "ValidationError"


def test_the_lambda_function_says_that_its_agent_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_URL", "http://127.0.0.1:9/rollout")
    answer = lambda_forwarder.handler(documented_request("http://127.0.0.1:9", "t"), None)
    assert answer["errorType"] == "InternalServerError"


@pytest.mark.parametrize("name", ["openai_agents", "langchain_agent", "strands_handler", "boto3_streaming"])
def test_a_rollout_that_breaks_is_sealed_as_failed(
    name: str, example: Callable[[str], str], server: Server, database: Path, trajectory_id: str
) -> None:
    request = sdk_request(server.url, trajectory_id)
    request["inference_params"]["max_tokens"] = -1  # the model refuses that
    httpx2.post(f"{example(name)}/rollout", json=request, timeout=60)
    wait_for_reward(database, trajectory_id)
    trajectory, _ = stored(database, trajectory_id)
    assert (trajectory.completion, trajectory.rewards, trajectory.eligible) == (Status.FAILED, [0.0], False)
