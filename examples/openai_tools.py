"""The OpenAI client with a tool; a plain function, called in the process of whoever plays the trainer.

job-runtime-local rollout examples/arithmetic.jsonl --agent python:examples.openai_tools:roll_out
"""

from __future__ import annotations

import json
import logging
import operator
import re
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from openai import OpenAI

MAX_TURNS = 6

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work out a sum of two whole numbers.",
        "strict": True,  # so that vLLM holds the model to the parameters
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "for example 12 * 3"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
    },
}


def roll_out(request: dict[str, Any]) -> float:
    """Do one rollout: let the model use the calculator until it answers, seal the trajectory, submit the reward."""
    metadata, instance = request["metadata"], request["instance"]
    job_arn, trajectory_id = metadata["job_arn"], metadata["trajectory_id"]
    runtime, model = connect(metadata["endpoint"], metadata["region"])
    headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": trajectory_id}
    try:
        answer = ask(
            model.with_options(default_headers=headers), instance["prompt"], request.get("inference_params") or {}
        )
        status, value = "ready", reward(answer, instance["answer"])
    except Exception:
        logging.exception("rollout %s failed", trajectory_id)
        status, value = "failed", 0.0
    runtime.complete_rollout(JobArn=job_arn, TrajectoryId=trajectory_id, Status=status)
    runtime.update_reward(JobArn=job_arn, TrajectoryId=trajectory_id, Rewards=[value])
    return value


def ask(model: OpenAI, prompt: str, parameters: dict[str, Any]) -> str:
    """What the model says when it calls no tool any more. The first turn has to call it."""
    messages: list[Any] = [{"role": "user", "content": f"{prompt} Use the calculator, then answer with the number."}]
    for turn in range(MAX_TURNS):
        completion = model.chat.completions.create(
            model="default",
            messages=messages,
            tools=[TOOL],
            tool_choice="auto" if turn else "required",
            **{name: value for name, value in parameters.items() if value is not None},
        )
        message: Any = completion.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        for call in message.tool_calls:
            result = calculator(json.loads(call.function.arguments)["expression"])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return ""


def calculator(expression: str) -> str:
    """Work out a sum of two whole numbers, or say how to write it: a model may write anything."""
    found = re.search(r"(\d{1,9}) ?([-+*]) ?(\d{1,9})", expression)
    if found is None:
        return "error: write two whole numbers with +, - or * between them"
    work_out = {"+": operator.add, "-": operator.sub, "*": operator.mul}[found[2]]
    return f"{found[0]} = {work_out(int(found[1]), int(found[3]))}"


def reward(answer: str, expected: str) -> float:
    """1.0 if the last number of the answer is the expected one, else 0.0."""
    numbers = re.findall(r"-?\d+", answer.replace(",", ""))
    return 1.0 if numbers and numbers[-1] == expected else 0.0


@cache
def connect(endpoint: str, region: str) -> tuple[Any, OpenAI]:
    """The two clients, one each for all rollouts: to make one takes longer than a sample."""
    session = boto3.session.Session()
    config = Config(max_pool_connections=96)
    runtime = session.client("sagemakerjobruntime", endpoint_url=endpoint, region_name=region, config=config)
    return runtime, OpenAI(base_url=f"{endpoint}/v1", api_key="local")
