"""An agent that talks to Job Runtime through the OpenAI client, streaming, and seals its rollout through boto3.

    python -m examples.openai_agent "What is 12 * 7 + 5?" 89

Its endpoint and credentials come from the environment, as `job-runtime-local serve` prints them.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

import boto3
from openai import OpenAI

from examples.calculator import TOOL, calculate
from examples.reward import reward

MAX_TURNS = 6


def roll_out(client: Any, job_arn: str, trajectory_id: str, prompt: str, expected: str, *, model: OpenAI) -> float:
    """Answer one prompt, seal the trajectory and submit its reward; the reward."""
    tools: list[Any] = [TOOL]
    messages: list[Any] = [
        {"role": "system", "content": "Use the calculator. Then answer with the number."},
        {"role": "user", "content": prompt},
    ]
    headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": trajectory_id}
    content = ""
    for _ in range(MAX_TURNS):
        with model.chat.completions.stream(
            model="default", messages=messages, tools=tools, max_tokens=256, extra_headers=headers
        ) as stream:
            message = stream.get_final_completion().choices[0].message
        content = message.content or ""
        messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            result = calculate(str(arguments.get("expression", "")))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    value = reward(content, expected)
    client.complete_rollout(JobArn=job_arn, TrajectoryId=trajectory_id, Status="ready")
    client.update_reward(JobArn=job_arn, TrajectoryId=trajectory_id, Rewards=[value])
    return value


if __name__ == "__main__":
    JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/example"
    RUNTIME = boto3.client("sagemakerjobruntime")
    print(roll_out(RUNTIME, JOB_ARN, str(uuid4()), *sys.argv[1:3], model=OpenAI(api_key="local")))
