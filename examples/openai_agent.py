"""An agent that talks to Job Runtime through the OpenAI client, streaming, and seals its rollout through boto3.

    python -m examples.openai_agent "What is 12 * 7 + 5?" 89

Its endpoint and credentials come from the environment, as `job-runtime-local serve` prints them.
"""

from __future__ import annotations

import sys
from typing import Any
from uuid import uuid4

import boto3
from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from examples import calculator
from examples.reward import reward

MAX_TURNS = 6


def roll_out(client: Any, job_arn: str, trajectory_id: str, prompt: str, expected: str, *, model: OpenAI) -> float:
    """Answer one prompt, seal the trajectory and submit its reward; the reward."""
    headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": trajectory_id}
    try:
        value, status = reward(answer(model.with_options(default_headers=headers), prompt), expected), "ready"
    except ValueError:  # the model called the tool in a way that makes no sense
        value, status = 0.0, "failed"
    client.complete_rollout(JobArn=job_arn, TrajectoryId=trajectory_id, Status=status)
    client.update_reward(JobArn=job_arn, TrajectoryId=trajectory_id, Rewards=[value])
    return value


def answer(model: OpenAI, prompt: str) -> str:
    """Let the model use the calculator until it answers. Raises ValueError if it calls it wrongly."""
    tools: list[Any] = [calculator.TOOL]
    messages: list[Any] = [
        {"role": "system", "content": "Use the calculator. Then answer with the number."},
        {"role": "user", "content": prompt},
    ]
    for turn in range(MAX_TURNS):
        with model.chat.completions.create(
            model="default",
            messages=messages,
            tools=tools,
            tool_choice="auto" if turn else "required",
            max_tokens=128,
            stream=True,
            stream_options={"include_usage": True},
        ) as stream:
            state = ChatCompletionStreamState()
            for chunk in stream:
                state.handle_chunk(chunk)
        message = state.current_completion_snapshot.choices[0].message
        messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        for call in message.tool_calls or ():
            result = calculator.call(call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        if not message.tool_calls:
            return message.content or ""
    return ""


if __name__ == "__main__":
    JOB_ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/example"
    RUNTIME = boto3.client("sagemakerjobruntime")
    print(roll_out(RUNTIME, JOB_ARN, str(uuid4()), *sys.argv[1:3], model=OpenAI(api_key="local")))
