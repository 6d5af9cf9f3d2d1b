"""A Strands agent under the SageMaker SDK's `sagemaker_rft_handler`; a rollout server.

uvicorn examples.strands_handler:app --port 8080      # pip install 'sagemaker-train[rft-strands]' uvicorn
job-runtime-local rollout examples/arithmetic.jsonl --agent http://127.0.0.1:8080/rollout
"""

from __future__ import annotations

import operator
import re
from typing import Any

from sagemaker.core.token_generator import generate_token
from sagemaker.train.rft import sagemaker_rft_handler
from sagemaker.train.rft.adapters.strands import wrap_model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from strands import Agent, tool
from strands.models.openai import OpenAIModel


@sagemaker_rft_handler
async def roll_out(request: dict[str, Any]) -> dict[str, Any]:
    """Do one rollout. The handler seals it, and submits the reward that is returned; what raises has failed."""
    metadata, instance = request["metadata"], request["instance"]
    client = {"base_url": f"{metadata['endpoint']}/v1", "api_key": generate_token(region=metadata["region"])}
    # The wrapped model adds the rollout's headers and its inference parameters to each request.
    model = wrap_model(OpenAIModel(client_args=client, model_id="default"))
    agent = Agent(model=model, tools=[calculator], callback_handler=None)
    answer = str(await agent.invoke_async(f"{instance['prompt']} Use the calculator, then answer with the number."))
    return {"answer": answer, "reward": reward(answer, instance["answer"])}


@tool
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


async def accept(request: Request) -> JSONResponse:
    """Do a rollout while the trainer waits for the answer."""
    return JSONResponse(await roll_out(await request.json()))


async def health(_: Request) -> JSONResponse:
    """Ready for rollouts."""
    return JSONResponse({"status": "healthy"})


app = Starlette(routes=[Route("/rollout", accept, methods=["POST"]), Route("/health", health)])
