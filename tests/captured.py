"""Rollouts to look at: the least that puts a trajectory into an emulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx2

_PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "calculator", "parameters": _PARAMETERS}}]


def ask(url: str, job_arn: str, trajectory_id: str, messages: Sequence[dict[str, Any]], **options: object) -> Any:
    """One turn; the model's message."""
    headers = [
        (b"X-Amzn-SageMaker-Job-Arn", job_arn.encode()),
        (b"X-Amzn-SageMaker-Trajectory-Id", trajectory_id.encode()),
    ]
    document = {"model": "default", "messages": messages, **options}
    answer = httpx2.post(f"{url}/v1/chat/completions", headers=headers, json=document, timeout=120)
    assert answer.status_code == 200, answer.text
    return None if options.get("stream") else answer.json()["choices"][0]["message"]


def roll_out(
    url: str, job_arn: str, trajectory_id: str, *, status: str = "ready", rewards: Sequence[float] | None = (1.0,)
) -> list[dict[str, Any]]:
    """A whole rollout of two turns, a calculator's call and the answer; the last conversation."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is 6 * 7?"}]
    messages.append(ask(url, job_arn, trajectory_id, messages, tools=TOOLS))
    (call,) = messages[-1]["tool_calls"]
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": "42"})
    messages.append(ask(url, job_arn, trajectory_id, messages, tools=TOOLS))
    rollout = {"JobArn": job_arn, "TrajectoryId": trajectory_id}
    done = httpx2.post(f"{url}/complete-rollout", json={**rollout, "Status": status})
    assert done.status_code == 200, done.text
    if rewards is not None:
        done = httpx2.post(f"{url}/update-reward", json={**rollout, "Rewards": list(rewards)})
        assert done.status_code == 200, done.text
    return messages
