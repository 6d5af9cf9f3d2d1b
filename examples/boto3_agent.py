"""An agent that talks to Job Runtime through boto3 alone.

    python -m examples.boto3_agent "What is 12 * 7 + 5?" 89

Its endpoint and credentials come from the environment, as `job-runtime-local serve` prints them.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

import boto3

from examples import calculator
from examples.reward import reward

MAX_TURNS = 6


def roll_out(client: Any, job_arn: str, trajectory_id: str, prompt: str, expected: str) -> float:
    """Answer one prompt, seal the trajectory and submit its reward; the reward."""
    rollout = {"JobArn": job_arn, "TrajectoryId": trajectory_id}
    try:
        value, status = reward(answer(client, rollout, prompt), expected), "ready"
    except ValueError:  # the model called the tool in a way that makes no sense
        value, status = 0.0, "failed"
    client.complete_rollout(**rollout, Status=status)
    client.update_reward(**rollout, Rewards=[value])
    return value


def answer(client: Any, rollout: dict[str, str], prompt: str) -> str:
    """Let the model use the calculator until it answers. Raises ValueError if it calls it wrongly."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Use the calculator. Then answer with the number."},
        {"role": "user", "content": prompt},
    ]
    for turn in range(MAX_TURNS):
        body = {
            "model": "default",
            "messages": messages,
            "tools": [calculator.TOOL],
            "tool_choice": "auto" if turn else "required",
            "max_tokens": 128,
        }
        sampled = client.sample(**rollout, Body=json.dumps(body).encode())
        message = json.loads(sampled["Body"].read())["choices"][0]["message"]
        messages.append(message)
        for call in message.get("tool_calls") or ():
            result = calculator.call(call["function"]["arguments"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        if not message.get("tool_calls"):
            break
    return messages[-1]["content"] or ""


if __name__ == "__main__":
    JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/example"
    print(roll_out(boto3.client("sagemakerjobruntime"), JOB_ARN, str(uuid4()), sys.argv[1], sys.argv[2]))
