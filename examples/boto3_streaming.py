"""boto3 alone, each answer read as it streams in; a rollout server: `POST /rollout`, `GET /health`.

uvicorn examples.boto3_streaming:app --port 8080
job-runtime-local rollout examples/arithmetic.jsonl --agent http://127.0.0.1:8080/rollout
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
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

MAX_TURNS = 3

#: How answers look: a small model does not find out by itself.
SHOTS = [
    {"role": "user", "content": "What is 6 + 2?"},
    {"role": "assistant", "content": "6 + 2 = 8"},
    {"role": "user", "content": "What is 4 * 5?"},
    {"role": "assistant", "content": "4 * 5 = 20"},
]


def roll_out(request: dict[str, Any]) -> float:
    """Do one rollout: sample until the model names a number, seal the trajectory, submit the reward."""
    metadata, prompt = request["metadata"], request["instance"]["prompt"]
    runtime = connect(metadata["endpoint"], metadata["region"])
    rollout = {"JobArn": metadata["job_arn"], "TrajectoryId": metadata["trajectory_id"]}
    try:
        answer = ask(runtime, rollout, prompt, request.get("inference_params") or {})
        status, value = "ready", reward(answer, prompt)
    except Exception:
        logging.exception("rollout %s failed", metadata["trajectory_id"])
        status, value = "failed", 0.0
    runtime.complete_rollout(**rollout, Status=status)
    runtime.update_reward(**rollout, Rewards=[value])
    return value


def ask(runtime: Any, rollout: dict[str, str], prompt: str, parameters: dict[str, Any]) -> str:
    """What the model says at last; it is asked again while there is no number in it."""
    messages = [*SHOTS, {"role": "user", "content": prompt}]
    said = ""
    for _ in range(MAX_TURNS):
        said = sample(runtime, rollout, messages, parameters)
        if re.search(r"\d", said):
            break
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Which number is it?"}]
    return said


def sample(runtime: Any, rollout: dict[str, str], messages: list[dict[str, str]], parameters: dict[str, Any]) -> str:
    """One message of the model, put together from the events of its stream."""
    options = {name: value for name, value in parameters.items() if value is not None}
    stream_options = {"include_usage": True}  # so that the tokens are counted
    body = {"model": "default", "messages": messages, "stream": True, "stream_options": stream_options, **options}
    stream = runtime.sample_with_response_stream(**rollout, Body=json.dumps(body).encode())["Body"]
    said = []
    for line in stream.iter_lines():
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            said += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
    return "".join(said)


def reward(answer: str, prompt: str) -> float:
    """1.0 if the last number of the answer is the result of the prompt's sum, else 0.0."""
    left, sign, right = re.findall(r"(\d+) ([-+*]) (\d+)", prompt)[0]
    expected = {"+": operator.add, "-": operator.sub, "*": operator.mul}[sign](int(left), int(right))
    numbers = re.findall(r"-?\d+", answer.replace(",", ""))
    return 1.0 if numbers and int(numbers[-1]) == expected else 0.0


@cache
def connect(endpoint: str, region: str) -> Any:
    """One client for all rollouts: to make one takes longer than a sample."""
    config = Config(max_pool_connections=96, read_timeout=600)
    session = boto3.session.Session()
    return session.client("sagemakerjobruntime", endpoint_url=endpoint, region_name=region, config=config)


async def accept(request: Request) -> JSONResponse:
    """Take a rollout on. The answer does not wait for it: its reward is what the trainer waits for."""
    return JSONResponse({"status": "accepted"}, 202, background=BackgroundTask(roll_out, await request.json()))


async def health(_: Request) -> JSONResponse:
    """Ready for rollouts."""
    return JSONResponse({"status": "healthy"})


app = Starlette(routes=[Route("/rollout", accept, methods=["POST"]), Route("/health", health)])
