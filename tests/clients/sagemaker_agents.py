"""Agents on the SageMaker SDK, each a rollout from its request to its feedback; `sagemaker_rollouts` runs them."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx  # type: ignore[import-not-found]
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool as langchain_tool
from langchain_openai import ChatOpenAI
from openai import OpenAI
from sagemaker.core.token_generator import generate_token
from sagemaker.train.rft import (
    RolloutFeedbackClient,
    RolloutMetadata,
    RolloutRequest,
    get_inference_headers,
    make_inference_headers,
    sagemaker_rft_handler,
    set_rollout_context,
)
from sagemaker.train.rft.adapters.langchain import create_async_http_client, create_http_client
from sagemaker.train.rft.adapters.strands import wrap_model
from strands import Agent
from strands import tool as strands_tool
from strands.models.openai import OpenAIModel

from tests.clients.question import CALCULATOR, QUESTION, calculator

Metadata = Mapping[str, Any]


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """An environment variable for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# ---- agents: each does the turns of a rollout, and says what the model answered ----


def openai_agent(metadata: Metadata) -> str:
    """The OpenAI client with the SDK's token and headers, as its examples have it."""
    tool: Any = CALCULATOR
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    with OpenAI(
        base_url=metadata["endpoint"] + "/v1",
        api_key=generate_token(region=metadata["region"]),
        default_headers=make_inference_headers(metadata),
        max_retries=0,
    ) as client:
        while True:
            completion = client.chat.completions.create(model="default", messages=messages, tools=[tool])
            message: Any = completion.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return str(message.content)
            for call in message.tool_calls:
                result = calculator(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


langchain_calculator = langchain_tool(calculator)


async def add_headers(request: httpx.Request) -> None:
    """What the adapter's asynchronous client is to do, but in 1.27 does with a plain function, which httpx awaits."""
    request.headers.update(get_inference_headers())


def langchain_model(metadata: Metadata, http_async_client: httpx.AsyncClient | None = None) -> Any:
    """LangChain's model; the headers come from the rollout's context."""
    model = ChatOpenAI(
        model="default",
        base_url=metadata["endpoint"] + "/v1",
        api_key=generate_token(region=metadata["region"]),
        http_client=create_http_client(),
        http_async_client=http_async_client,
        max_retries=0,
    )
    return model.bind_tools([langchain_calculator])


def langchain_agent(metadata: Metadata, *, streaming: bool) -> str:
    """LangChain, each answer whole or in pieces."""
    model, messages = langchain_model(metadata), [HumanMessage(QUESTION)]
    while True:
        pieces = list(model.stream(messages)) if streaming else [model.invoke(messages)]
        message = sum(pieces[1:], pieces[0])
        if not message.tool_calls:
            return str(message.content)
        messages += [message, *map(langchain_calculator.invoke, message.tool_calls)]


async def langchain_async_agent(metadata: Metadata, http_client: httpx.AsyncClient) -> str:
    """LangChain, asynchronously, each answer in pieces."""
    model, messages = langchain_model(metadata, http_client), [HumanMessage(QUESTION)]
    while True:
        pieces = [piece async for piece in model.astream(messages)]
        message = sum(pieces[1:], pieces[0])
        if not message.tool_calls:
            return str(message.content)
        messages += [message, *map(langchain_calculator.invoke, message.tool_calls)]


def strands_agent(metadata: Metadata) -> Any:
    """A Strands agent; the headers and the parameters come from the rollout's context."""
    client_args = {
        "base_url": metadata["endpoint"] + "/v1",
        "api_key": generate_token(region=metadata["region"]),
        "max_retries": 0,
    }
    model = wrap_model(OpenAIModel(client_args=client_args, model_id="default"))
    return Agent(model=model, tools=[strands_tool(calculator)], callback_handler=None)


# ---- rollouts: from the request to the feedback ----


def metadata_of(payload: Mapping[str, Any]) -> Metadata:
    """The metadata of a rollout request."""
    metadata: Metadata = payload["metadata"]
    return metadata


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def handler_sync(payload: dict[str, Any]) -> dict[str, Any]:
    """One reward for the rollout."""
    return {"answer": openai_agent(metadata_of(payload)), "reward": 0.5}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
async def handler_async(payload: dict[str, Any]) -> dict[str, Any]:
    """One reward a turn."""
    answer = await asyncio.to_thread(openai_agent, metadata_of(payload))
    return {"answer": answer, "reward": [0.0, 0.25, 1.0]}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def handler_without_reward(payload: dict[str, Any]) -> dict[str, Any]:
    """The reward is somebody else's business."""
    return {"answer": openai_agent(metadata_of(payload))}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def handler_that_raises(payload: dict[str, Any]) -> dict[str, Any]:
    """The agent fails after its turns."""
    openai_agent(metadata_of(payload))
    raise RuntimeError("the agent failed")


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
async def handler_async_that_raises(payload: dict[str, Any]) -> dict[str, Any]:
    """The agent fails after its turns, asynchronously."""
    await asyncio.to_thread(openai_agent, metadata_of(payload))
    raise RuntimeError("the agent failed")


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def handler_with_status_error(payload: dict[str, Any]) -> dict[str, Any]:
    """The agent says that it failed."""
    openai_agent(metadata_of(payload))
    return {"status": "error", "error": "the agent failed", "reward": 1.0}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def handler_with_status_skipped(payload: dict[str, Any]) -> dict[str, Any]:
    """The agent wants no feedback."""
    openai_agent(metadata_of(payload))
    return {"status": "skipped"}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def handler_that_returns_no_dict(payload: dict[str, Any]) -> str:
    """The agent returns something that is no result."""
    return openai_agent(metadata_of(payload))


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def handler_of_a_sealed_trajectory(payload: dict[str, Any]) -> dict[str, Any]:
    """Somebody else seals the trajectory while the agent is still at work."""
    metadata = metadata_of(payload)
    openai_agent(metadata)
    RolloutFeedbackClient(metadata).report_complete(0.75)
    openai_agent(metadata)
    raise AssertionError("the sealed trajectory took a turn")


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def langchain_whole(payload: dict[str, Any]) -> dict[str, Any]:
    """LangChain adapter."""
    return {"answer": langchain_agent(metadata_of(payload), streaming=False), "reward": 1.0}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
def langchain_stream(payload: dict[str, Any]) -> dict[str, Any]:
    """LangChain adapter, in pieces."""
    return {"answer": langchain_agent(metadata_of(payload), streaming=True), "reward": 1.0}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
async def langchain_async_stream(payload: dict[str, Any]) -> dict[str, Any]:
    """LangChain, asynchronously, in pieces."""
    client = httpx.AsyncClient(event_hooks={"request": [add_headers]})
    return {"answer": await langchain_async_agent(metadata_of(payload), client), "reward": 1.0}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
async def langchain_async_adapter(payload: dict[str, Any]) -> dict[str, Any]:
    """LangChain with the adapter's own asynchronous client."""
    return {"answer": await langchain_async_agent(metadata_of(payload), create_async_http_client()), "reward": 1.0}


@sagemaker_rft_handler  # type: ignore[untyped-decorator]
async def strands_async(payload: dict[str, Any]) -> dict[str, Any]:
    """Strands adapter."""
    result = await strands_agent(metadata_of(payload)).invoke_async(QUESTION)
    return {"answer": str(result).strip(), "reward": 1.0}


def strands_standalone(payload: dict[str, Any]) -> dict[str, Any]:
    """Strands adapter without the handler, with the request as the SDK models it."""
    request = RolloutRequest.model_validate(payload)
    metadata = request.metadata.model_dump()
    set_rollout_context(metadata, request.inference_params.model_dump())
    answer = str(strands_agent(metadata)(request.instance["prompt"])).strip()
    RolloutFeedbackClient(request.metadata).report_complete(reward=1.0)
    return {"answer": answer}


def feedback_complete(payload: dict[str, Any]) -> dict[str, Any]:
    """The OpenAI client, then the feedback client."""
    metadata = RolloutMetadata.model_validate(payload["metadata"])
    answer = openai_agent(metadata.model_dump())
    RolloutFeedbackClient(metadata).report_complete(1.0)
    return {"answer": answer}


def feedback_error(payload: dict[str, Any]) -> dict[str, Any]:
    """The feedback client reports that the rollout failed."""
    answer = openai_agent(metadata_of(payload))
    RolloutFeedbackClient(dict(metadata_of(payload))).report_error("the tool broke")
    return {"answer": answer}


def feedback_through_the_environment(payload: dict[str, Any]) -> dict[str, Any]:
    """Metadata without an endpoint: it comes from RFT_RUNTIME_ENDPOINT."""
    metadata = dict(metadata_of(payload))
    answer = openai_agent(metadata)
    with variable("RFT_RUNTIME_ENDPOINT", metadata.pop("endpoint")):
        RolloutFeedbackClient(metadata).report_complete([0.0, 0.0, 1.0])
    return {"answer": answer}


def feedback_twice(payload: dict[str, Any]) -> dict[str, Any]:
    """The second report of a rollout raises."""
    openai_agent(metadata_of(payload))
    feedback = RolloutFeedbackClient(dict(metadata_of(payload)))
    feedback.report_complete(0.25)
    feedback.report_complete(0.75)
    raise AssertionError("the trajectory was completed twice")


def feedback_for_no_trajectory(payload: dict[str, Any]) -> dict[str, Any]:
    """The SDK takes a 404 for nothing worse than a warning."""
    RolloutFeedbackClient(dict(metadata_of(payload))).report_complete(1.0)
    return {}


def wrong_secret(payload: dict[str, Any]) -> dict[str, Any]:
    """A token that is signed with another secret."""
    with variable("AWS_SECRET_ACCESS_KEY", "another-secret"):
        return {"answer": openai_agent(metadata_of(payload))}


def wrong_region(payload: dict[str, Any]) -> dict[str, Any]:
    """A token for another region."""
    return {"answer": openai_agent({**metadata_of(payload), "region": "eu-central-1"})}


def feedback_with_wrong_secret(payload: dict[str, Any]) -> dict[str, Any]:
    """Feedback whose token is signed with another secret."""
    answer = openai_agent(metadata_of(payload))
    with variable("AWS_SECRET_ACCESS_KEY", "another-secret"):
        RolloutFeedbackClient(dict(metadata_of(payload))).report_complete(1.0)
    return {"answer": answer}


ROLLOUTS: tuple[Callable[[dict[str, Any]], Any], ...] = (
    handler_sync, handler_async, handler_without_reward, handler_that_raises, handler_async_that_raises,
    handler_with_status_error, handler_with_status_skipped, handler_that_returns_no_dict,
    handler_of_a_sealed_trajectory, langchain_whole, langchain_stream, langchain_async_stream,
    langchain_async_adapter, strands_async, strands_standalone, feedback_complete, feedback_error,
    feedback_through_the_environment, feedback_twice, feedback_for_no_trajectory,
    wrong_secret, wrong_region, feedback_with_wrong_secret,
)  # fmt: skip

#: These get their request as the documentation spells it.
DOCUMENTED = (handler_async, langchain_whole, strands_async)
