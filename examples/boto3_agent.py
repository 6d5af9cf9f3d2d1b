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

from examples.calculator import TOOL, calculate
from examples.reward import reward

MAX_TURNS = 6


def roll_out(client: Any, job_arn: str, trajectory_id: str, prompt: str, expected: str) -> float:
    """Answer one prompt, seal the trajectory and submit its reward; the reward."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Use the calculator. Then answer with the number."},
        {"role": "user", "content": prompt},
    ]
    for _ in range(MAX_TURNS):
        message = ask(client, job_arn, trajectory_id, messages)
        messages.append(message)
        if not message.get("tool_calls"):
            break
        for call in message["tool_calls"]:
            arguments = json.loads(call["function"]["arguments"])
            result = calculate(str(arguments.get("expression", "")))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    value = reward(messages[-1].get("content") or "", expected)
    client.complete_rollout(JobArn=job_arn, TrajectoryId=trajectory_id, Status="ready")
    client.update_reward(JobArn=job_arn, TrajectoryId=trajectory_id, Rewards=[value])
    return value


def ask(client: Any, job_arn: str, trajectory_id: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """One turn: the model's message."""
    body = {"model": "default", "messages": messages, "tools": [TOOL], "max_tokens": 256}
    answer = client.sample(JobArn=job_arn, TrajectoryId=trajectory_id, Body=json.dumps(body).encode())
    message: dict[str, Any] = json.loads(answer["Body"].read())["choices"][0]["message"]
    return message


if __name__ == "__main__":
    JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/example"
    print(roll_out(boto3.client("sagemakerjobruntime"), JOB_ARN, str(uuid4()), sys.argv[1], sys.argv[2]))
