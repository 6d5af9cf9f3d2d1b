"""An agent of the OpenAI Agents SDK (the package `openai-agents`); a rollout server.

uvicorn examples.openai_agents:app --port 8080      # pip install openai-agents boto3
job-runtime-local rollout examples/arithmetic.jsonl --agent http://127.0.0.1:8080/rollout
"""

from __future__ import annotations

import asyncio
import logging
import operator
import re
from functools import cache
from typing import Any

import boto3
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from botocore.config import Config
from openai import AsyncOpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

set_tracing_disabled(True)  # else it sends what happened to OpenAI


async def roll_out(request: dict[str, Any]) -> float:
    """Do one rollout: let the agent answer, seal the trajectory, submit the reward."""
    metadata, instance = request["metadata"], request["instance"]
    job_arn, trajectory_id = metadata["job_arn"], metadata["trajectory_id"]
    runtime = connect(metadata["endpoint"], metadata["region"])
    headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": trajectory_id}
    try:
        async with AsyncOpenAI(
            base_url=f"{metadata['endpoint']}/v1", api_key="local", default_headers=headers
        ) as client:
            agent = Agent(
                name="calculating",
                instructions="Use the calculator, then answer with the number.",
                model=OpenAIChatCompletionsModel(model="default", openai_client=client),
                model_settings=ModelSettings(tool_choice="required", **(request.get("inference_params") or {})),
                tools=[calculator],
            )
            done = await Runner.run(agent, instance["prompt"], max_turns=6)
        status, value = "ready", reward(done.final_output, instance["answer"])
    except Exception:
        logging.exception("rollout %s failed", trajectory_id)
        status, value = "failed", 0.0
    rollout = {"JobArn": job_arn, "TrajectoryId": trajectory_id}
    await asyncio.to_thread(runtime.complete_rollout, **rollout, Status=status)
    await asyncio.to_thread(runtime.update_reward, **rollout, Rewards=[value])
    return value


@function_tool
def calculator(expression: str) -> str:
    """Work out a sum of two whole numbers.

    Args:
        expression: for example 12 * 3
    """
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
def connect(endpoint: str, region: str) -> Any:
    """One client for all rollouts: to make one takes longer than a sample."""
    config = Config(max_pool_connections=96)
    session = boto3.session.Session()
    return session.client("sagemakerjobruntime", endpoint_url=endpoint, region_name=region, config=config)


async def accept(request: Request) -> JSONResponse:
    """Do a rollout while the trainer waits for the answer."""
    return JSONResponse({"reward": await roll_out(await request.json())})


async def health(_: Request) -> JSONResponse:
    """Ready for rollouts."""
    return JSONResponse({"status": "healthy"})


app = Starlette(routes=[Route("/rollout", accept, methods=["POST"]), Route("/health", health)])
