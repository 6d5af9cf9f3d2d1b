"""Rollouts of many kinds, as the emulator captures them."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.captured import TOOLS, ask
from tests.conftest import JOB_ARN

OTHER_JOB = JOB_ARN.replace("arithmetic", "another")

#: What makes a model say which tokens it saw and sampled.
TOKENS: dict[str, Any] = {"return_token_ids": True, "logprobs": True}


def begin(url: str, trajectory_id: str, group: str | None = None, instance: dict[str, Any] | None = None) -> None:
    """Dispatch a rollout."""
    body = {"job_arn": JOB_ARN, "trajectory_id": trajectory_id, "group": group, "instance": instance}
    given = {name: value for name, value in body.items() if value is not None}
    assert httpx2.post(f"{url}/_emulator/trajectories", json=given).status_code == 200


def converse(url: str, trajectory_id: str, question: str = "What is 6 * 7?", **options: object) -> list[dict[str, Any]]:
    """Two turns, a calculator's call and the answer; the conversation. The answer may be streamed."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    messages.append(ask(url, JOB_ARN, trajectory_id, messages, tools=TOOLS, **{**options, "stream": False}))
    (call,) = messages[-1]["tool_calls"]
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": "42"})
    ask(url, JOB_ARN, trajectory_id, messages, tools=TOOLS, **options)
    return messages


def end(url: str, trajectory_id: str, *rewards: float, status: str = "ready", job_arn: str = JOB_ARN) -> None:
    """Seal a rollout, and give it its rewards, if it gets some."""
    rollout = {"JobArn": job_arn, "TrajectoryId": trajectory_id}
    assert httpx2.post(f"{url}/complete-rollout", json={**rollout, "Status": status}).status_code == 200
    if rewards:
        assert httpx2.post(f"{url}/update-reward", json={**rollout, "Rewards": list(rewards)}).status_code == 200


def complete(url: str, trajectory_id: str, prompt: object, **options: object) -> list[int]:
    """A turn of plain text, and its tokens; those of the prompt first."""
    headers = {"X-Amzn-SageMaker-Job-Arn": JOB_ARN, "X-Amzn-SageMaker-Trajectory-Id": trajectory_id}
    answer = httpx2.post(
        f"{url}/v1/completions", headers=headers, json={"model": "default", "prompt": prompt, **options}
    )
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return [*choice["prompt_token_ids"], *choice["token_ids"]]


def interleave(url: str, trajectory_id: str, **options: object) -> None:
    """Two conversations of two turns each, which alternate."""
    both = [[{"role": "user", "content": question}] for question in ("Good morning", "Good evening")]
    for _ in range(2):
        for messages in both:
            messages.append(ask(url, JOB_ARN, trajectory_id, messages, **options))
            messages.append({"role": "user", "content": "And now?"})


def roll_out_every_kind(url: str) -> None:
    """A trajectory of each kind that exports tell apart."""
    for name, reward, stream in (("whole", 1.0, False), ("streamed", 0.0, True)):
        begin(url, name, "group-1", {"prompt": "What is 6 * 7?", "answer": 42})
        converse(url, name, stream=stream, **TOKENS)
        end(url, name, reward)
    begin(url, "without-ids", "group-2", {"prompt": "What is 2 * 3?"})
    converse(url, "without-ids", "What is 2 * 3?")
    end(url, "without-ids", 0.25, 0.25)
    begin(url, "given-up", "group-2", {"prompt": "What is 2 * 3?"})
    converse(url, "given-up", "What is 2 * 3?", **TOKENS)
    end(url, "given-up", 0.0, status="failed")
    converse(url, "unrewarded", **TOKENS)
    end(url, "unrewarded")
    begin(url, "never-sampled", "group-2")
    interleave(url, "interleaved", **TOKENS)
    end(url, "interleaved", 0.5, 0.5, 0.5, 0.5)
    so_far = complete(url, "text", "Once upon a time", **TOKENS | {"logprobs": 1})
    complete(url, "text", [*so_far, 5, 6], **TOKENS | {"logprobs": 1})
    end(url, "text", 0.75)
    ask(url, OTHER_JOB, "whole", [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], n=2, **TOKENS)
    end(url, "whole", 1.0, job_arn=OTHER_JOB)
