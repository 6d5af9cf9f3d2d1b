"""Agents that behave, and agents that do not: functions for `python:tests.jobs.agents:NAME`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event
from typing import Any

import boto3

#: Set by a test that wants agents to go on.
GO = Event()


def _runtime(request: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    metadata = request["metadata"]
    client = boto3.client(
        "sagemakerjobruntime",
        endpoint_url=metadata["endpoint"],
        region_name=metadata["region"],
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    return client, {"JobArn": metadata["jobArn"], "TrajectoryId": metadata["rolloutId"]}


def _ask(client: Any, rollout: dict[str, str], messages: list[Any]) -> str:
    body = {"model": "default", "messages": messages, "logprobs": True, "return_token_ids": True}
    answer = json.loads(client.sample(**rollout, Body=json.dumps(body).encode())["Body"].read())
    return str(answer["choices"][0]["message"]["content"])


def good(request: dict[str, Any]) -> None:
    """Two turns, and a reward that is 1 for every other member of a group."""
    client, rollout = _runtime(request)
    messages: list[Any] = [{"role": "user", "content": request["prompt"]}]
    messages.append({"role": "assistant", "content": _ask(client, rollout, messages)})
    messages.append({"role": "user", "content": "Are you sure?"})
    _ask(client, rollout, messages)
    client.complete_rollout(**rollout)
    member = int(rollout["TrajectoryId"].split("-")[-2])
    client.update_reward(**rollout, Rewards=[float(member % 2)])


def wants_an_answer(request: dict[str, Any]) -> None:
    """Is rewarded with the answer of its row."""
    client, rollout = _runtime(request)
    _ask(client, rollout, [{"role": "user", "content": request["prompt"]}])
    client.complete_rollout(**rollout)
    client.update_reward(**rollout, Rewards=[float(request["instance"]["answer"])])


def signals_failure(request: dict[str, Any]) -> None:
    """Seals as failed."""
    client, rollout = _runtime(request)
    _ask(client, rollout, [{"role": "user", "content": "Hello"}])
    client.complete_rollout(**rollout, Status="failed")


def never_samples(_request: dict[str, Any]) -> None:
    """Answers without having sampled."""


def never_answers(_request: dict[str, Any]) -> None:
    """Is busy until the test ends."""
    GO.wait(60)


def seals_without_reward(request: dict[str, Any]) -> None:
    """Forgets the reward."""
    client, rollout = _runtime(request)
    _ask(client, rollout, [{"role": "user", "content": "Hello"}])
    client.complete_rollout(**rollout)


def raises(_request: dict[str, Any]) -> None:
    """Has a bug."""
    raise RuntimeError("a bug of the agent")


def raises_what_is_no_text(_request: dict[str, Any]) -> None:
    """Has a bug, and words that cannot be written down."""
    raise RuntimeError("a bug: \ud800 \0")


def good_when_told(request: dict[str, Any]) -> None:
    """Waits for the test first."""
    GO.wait(60)
    good(request)


def calculates(request: dict[str, Any]) -> None:
    """Asks with a tool, gives its answer back, and rewards."""
    client, rollout = _runtime(request)
    messages: list[Any] = [{"role": "user", "content": request["prompt"]}]
    tools = [{"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}}]
    for _ in range(2):
        body = json.dumps({"model": "default", "messages": messages, "tools": tools}).encode()
        message = json.loads(client.sample(**rollout, Body=body)["Body"].read())["choices"][0]["message"]
        messages.append(message)
        calls = message.get("tool_calls") or ()
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in calls]
    client.complete_rollout(**rollout)
    client.update_reward(**rollout, Rewards=[0.5, 0.25])


def good_when_there_is_the_file(request: dict[str, Any]) -> None:
    """Of a server in another process: waits for the test first."""
    file, patience = Path(os.environ["JOBS_TEST_FILE"]), Event()
    while not file.exists():
        patience.wait(0.02)
    good(request)


def good_in_the_first_step(request: dict[str, Any]) -> None:
    """Waits for the test in all other steps."""
    if not request["metadata"]["rolloutId"].startswith("train-1-"):
        GO.wait(60)
    good(request)


#: By row: what the members of its group get. None fails, a list is a reward a turn.
UNEQUAL: list[list[float | list[float] | None]] = [
    [1.0, 0.0, 0.25],
    [None, 1.0, 0.5],  # one failed
    [None, None, None],  # all did
    [0.1, 0.1, 0.1],  # all alike, and a mean of them is none of them
    [None, 0.7, None],  # one survivor
    [[0.25, 0.5], [0.5, 0.5], 0.0],
    [0.0, 0.0, 0.0],
    [0.5, 0.75, 0.0],
]


def unequal_groups(request: dict[str, Any]) -> None:
    """As `UNEQUAL` has it; answers of different lengths."""
    client, rollout = _runtime(request)
    row, member = map(int, rollout["TrajectoryId"].split("-")[-3:-1])
    reward = UNEQUAL[row][member]
    for turn in range(2):
        _ask(client, rollout, [{"role": "user", "content": f"{'Say more. ' * (row + 2 * member + turn)}"}])
    if reward is None:
        client.complete_rollout(**rollout, Status="failed")
        return
    client.complete_rollout(**rollout)
    client.update_reward(**rollout, Rewards=reward if isinstance(reward, list) else [reward])
