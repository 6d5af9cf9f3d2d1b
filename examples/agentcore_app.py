"""boto3 with a tool, in an app for Bedrock AgentCore: `POST /invocations`, `GET /ping`; takes the documented form.

uvicorn examples.agentcore_app:app --port 8080      # pip install bedrock-agentcore
job-runtime-local rollout examples/arithmetic.jsonl --agent agentcore:http://127.0.0.1:8080 --payload documented
"""

from __future__ import annotations

import json
import logging
import operator
import re
from functools import cache
from typing import Any

import boto3
from bedrock_agentcore import BedrockAgentCoreApp
from botocore.config import Config

MAX_TURNS = 6

TOOL = {
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

app = BedrockAgentCoreApp()


@app.entrypoint
def roll_out(request: dict[str, Any]) -> dict[str, Any]:
    """Do one rollout: let the model use the calculator until it answers, seal the trajectory, submit the reward."""
    metadata = request["metadata"]
    rollout = {"JobArn": metadata["jobArn"], "TrajectoryId": metadata["rolloutId"]}
    runtime = connect(metadata.get("endpoint"), metadata.get("region"))
    try:
        answer = ask(runtime, rollout, request["prompt"], request.get("inferenceParams") or {})
        status, value = "ready", reward(answer, request["prompt"])
    except Exception:
        logging.exception("rollout %s failed", metadata["rolloutId"])
        status, value = "failed", 0.0
    runtime.complete_rollout(**rollout, Status=status)
    runtime.update_reward(**rollout, Rewards=[value])
    return {"status": status, "reward": value}


def ask(runtime: Any, rollout: dict[str, str], prompt: str, parameters: dict[str, Any]) -> str:
    """What the model says when it calls no tool any more. The first turn has to call it."""
    names = {"temperature": "temperature", "topP": "top_p", "maxTokens": "max_tokens"}
    options = {names[name]: value for name, value in parameters.items() if name in names and value is not None}
    messages: list[Any] = [{"role": "user", "content": f"{prompt} Use the calculator, then answer with the number."}]
    for turn in range(MAX_TURNS):
        choice = "auto" if turn else "required"
        body = {"model": "default", "messages": messages, "tools": [TOOL], "tool_choice": choice, **options}
        answer = runtime.sample(**rollout, Body=json.dumps(body).encode())
        message = json.loads(answer["Body"].read())["choices"][0]["message"]
        if not message.get("tool_calls"):
            return message.get("content") or ""
        messages.append(message)
        for call in message["tool_calls"]:
            result = calculator(json.loads(call["function"]["arguments"])["expression"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
    return ""


def calculator(expression: str) -> str:
    """Work out a sum of two whole numbers, or say how to write it: a model may write anything."""
    found = re.search(r"(\d{1,9}) ?([-+*]) ?(\d{1,9})", expression)
    if found is None:
        return "error: write two whole numbers with +, - or * between them"
    work_out = {"+": operator.add, "-": operator.sub, "*": operator.mul}[found[2]]
    return f"{found[0]} = {work_out(int(found[1]), int(found[3]))}"


def reward(answer: str, prompt: str) -> float:
    """1.0 if the last number of the answer is the result of the prompt's sum, else 0.0.

    The documented form has the prompt alone, not the row with its answer: so the reward knows how to check one.
    """
    expected = calculator(prompt).rpartition(" = ")[2]
    numbers = re.findall(r"-?\d+", answer.replace(",", ""))
    return 1.0 if numbers and numbers[-1] == expected else 0.0


@cache
def connect(endpoint: str | None, region: str | None) -> Any:
    """One client for all rollouts: to make one takes longer than a sample. What is not given, boto3 knows."""
    config = Config(max_pool_connections=96, read_timeout=600)
    session = boto3.session.Session()
    return session.client("sagemakerjobruntime", endpoint_url=endpoint, region_name=region, config=config)


if __name__ == "__main__":
    app.run(port=8080)
