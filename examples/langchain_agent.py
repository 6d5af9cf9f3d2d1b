"""A LangChain agent that seals and rewards with the SageMaker SDK's feedback client; a rollout server.

uvicorn examples.langchain_agent:app --port 8080      # pip install langchain langchain-openai sagemaker-train uvicorn
job-runtime-local rollout examples/arithmetic.jsonl --agent http://127.0.0.1:8080/rollout
"""

from __future__ import annotations

import operator
import re

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from sagemaker.core.token_generator import generate_token
from sagemaker.train.rft import RolloutFeedbackClient, RolloutRequest, make_inference_headers
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def roll_out(request: RolloutRequest) -> None:
    """Do one rollout: let the agent answer, then report the reward, or what went wrong."""
    metadata, parameters = request.metadata, request.inference_params
    model = ChatOpenAI(
        model="default",
        base_url=f"{metadata.endpoint}/v1",
        api_key=generate_token(region=metadata.region),
        default_headers=make_inference_headers(metadata),
        **(parameters.model_dump(exclude_none=True) if parameters else {}),
    )
    question = f"{request.instance['prompt']} Use the calculator, then answer with the number."
    feedback = RolloutFeedbackClient(metadata)
    try:
        done = create_agent(model, tools=[calculator]).invoke({"messages": [("user", question)]})
        value = reward(done["messages"][-1].text, request.instance["answer"])
    except Exception as error:
        feedback.report_error(str(error))
    else:
        feedback.report_complete(value)


@tool
def calculator(expression: str) -> str:
    """Work out a sum of two whole numbers, for example 12 * 3."""
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
    """Take a rollout on. The answer does not wait for it: its reward is what the trainer waits for."""
    rollout = RolloutRequest.model_validate(await request.json())
    return JSONResponse({"status": "accepted"}, 202, background=BackgroundTask(roll_out, rollout))


async def health(_: Request) -> JSONResponse:
    """Ready for rollouts."""
    return JSONResponse({"status": "healthy"})


app = Starlette(routes=[Route("/rollout", accept, methods=["POST"]), Route("/health", health)])
