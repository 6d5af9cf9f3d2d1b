"""The OpenAI client does whole rollouts, whole and streamed, with tools; boto3 seals them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from emulator.operations import OPENAI_PREFIXES
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.aws import runtime_client
from tests.clients.question import ANSWER, CALCULATOR, QUESTION, calculator
from tests.clients.rollouts import StoredRollout, stored_rollout
from tests.model_servers import Exchange, model_server

TRAJECTORY = "openai"
TOOLS: list[ChatCompletionToolParam] = [ChatCompletionToolParam(**CALCULATOR)]  # type: ignore[typeddict-item]
Messages = list[ChatCompletionMessageParam]


def options(server: Server, job_arn: str, prefix: str = "/v1") -> dict[str, Any]:
    """How an agent sets its client up for a rollout."""
    return {
        "base_url": server.url + prefix,
        "api_key": "sagemaker-api-key-whatever",
        "default_headers": {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": TRAJECTORY},
        "max_retries": 0,
    }


def sealed(server: Server, job_arn: str, database: Path) -> StoredRollout:
    """What is stored after boto3 has sealed the rollout and given its reward."""
    key = {"JobArn": job_arn, "TrajectoryId": TRAJECTORY}
    with runtime_client(server.url) as client:
        client.complete_rollout(**key)
        client.update_reward(**key, Rewards=[1.0])
    rollout = stored_rollout(database, TRAJECTORY)
    assert rollout.state == ("reward-received", "ready", [1.0], True)
    return rollout


@pytest.fixture
def client(server: Server, job_arn: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(**options(server, job_arn)) as client:
        yield client


def take_tools(messages: Messages, message: Any) -> bool:
    """Take the model's message, and call the tools that it names; whether there is a next turn."""
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls or ():
        result = calculator(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return bool(message.tool_calls)


@pytest.mark.parametrize("prefix", OPENAI_PREFIXES, ids=lambda prefix: prefix or "no prefix")
def test_a_rollout_with_tools(prefix: str, server: Server, job_arn: str, database: Path) -> None:
    messages: Messages = [{"role": "user", "content": QUESTION}]
    finished = []
    with openai.OpenAI(**options(server, job_arn, prefix)) as client:
        wants_more = True
        while wants_more:
            completion = client.chat.completions.create(model="default", messages=messages, tools=TOOLS)
            assert completion.usage is not None
            assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
            finished.append(completion.choices[0].finish_reason)
            wants_more = take_tools(messages, completion.choices[0].message)
    assert finished == ["tool_calls", "tool_calls", "stop"]
    assert messages[-1].get("content") == ANSWER
    sealed(server, job_arn, database).assert_whole_rollout()


def test_a_rollout_that_the_client_streams_with_tools(
    client: openai.OpenAI, server: Server, job_arn: str, database: Path
) -> None:
    messages: Messages = [{"role": "user", "content": QUESTION}]
    wants_more = True
    while wants_more:
        with client.chat.completions.stream(
            model="default", messages=messages, tools=TOOLS, stream_options={"include_usage": True}
        ) as stream:
            kinds = {event.type for event in stream}
            completion = stream.get_final_completion()
        assert "chunk" in kinds
        assert completion.usage is not None
        wants_more = take_tools(messages, completion.choices[0].message)
    assert messages[-1].get("content") == ANSWER
    rollout = sealed(server, job_arn, database)
    rollout.assert_whole_rollout()
    assert {turn.content_type for turn in rollout.turns} == {"text/event-stream; charset=utf-8"}


def test_an_asynchronous_rollout_with_tools(server: Server, job_arn: str, database: Path) -> None:
    async def rollout() -> Messages:
        messages: Messages = [{"role": "user", "content": QUESTION}]
        wants_more = True
        async with openai.AsyncOpenAI(**options(server, job_arn)) as client:
            while wants_more:
                completion = await client.chat.completions.create(model="default", messages=messages, tools=TOOLS)
                wants_more = take_tools(messages, completion.choices[0].message)
        return messages

    assert asyncio.run(rollout())[-1].get("content") == ANSWER
    sealed(server, job_arn, database).assert_whole_rollout()


def test_an_asynchronous_stream_arrives_in_pieces(server: Server, job_arn: str, database: Path) -> None:
    async def rollout() -> list[str]:
        async with openai.AsyncOpenAI(**options(server, job_arn)) as client:
            turns = []
            for question in ("Who are you?", "And who is next?"):
                stream = await client.chat.completions.create(
                    model="default", messages=[{"role": "user", "content": question}], stream=True
                )
                pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
                assert len(pieces) > 2
                turns.append("".join(pieces))
            return turns

    first, second = asyncio.run(rollout())
    assert "Who are you?" in first
    assert "And who is next?" in second
    assert len(sealed(server, job_arn, database).turns) == 2


def test_plain_completions_are_turns_too(client: openai.OpenAI, server: Server, job_arn: str, database: Path) -> None:
    whole = client.completions.create(model="default", prompt="Once upon a time")
    streamed = client.completions.create(model="default", prompt="Once upon a time", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text
    assert [turn.path for turn in sealed(server, job_arn, database).turns] == ["/v1/completions"] * 2


def test_a_raw_response_has_the_request_id(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="default", messages=[{"role": "user", "content": "hello"}]
    )
    assert raw.headers["x-amzn-requestid"]
    assert raw.parse().choices[0].message.content


@pytest.mark.parametrize("prefix", OPENAI_PREFIXES, ids=lambda prefix: prefix or "no prefix")
def test_models_are_listed_without_a_job(prefix: str, server: Server) -> None:
    with openai.OpenAI(base_url=server.url + prefix, api_key="any") as client:
        assert "default" in [model.id for model in client.models.list()]


def ask(client: openai.OpenAI, **given: Any) -> None:
    client.chat.completions.create(**{"model": "default", "messages": [{"role": "user", "content": "hi"}], **given})


def ask_for_a_stream(client: openai.OpenAI, **given: Any) -> None:
    ask(client, stream=True, **given)


def assert_readable(error: openai.APIStatusError, name: str, message: str) -> None:
    """The error says what it is to a program, to a person, and to whoever looks at the headers as AWS clients do."""
    assert error.code == name
    assert error.type == name
    assert message in error.message
    assert isinstance(error.body, dict)
    assert message in error.body["message"]
    assert error.response.headers["x-amzn-errortype"] == name
    assert message in error.response.json()["Message"]


@pytest.mark.parametrize("asking", [ask, ask_for_a_stream])
def test_a_sealed_trajectory_says_so(
    asking: Callable[..., None], client: openai.OpenAI, server: Server, job_arn: str, database: Path
) -> None:
    ask(client)
    sealed(server, job_arn, database)
    with pytest.raises(openai.BadRequestError) as refusal:
        asking(client)
    assert_readable(refusal.value, "ValidationException", "not in valid status")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X-Amzn-SageMaker-Job-Arn": openai.Omit()}, "'jobArn'"),
        ({"X-Amzn-SageMaker-Trajectory-Id": openai.Omit()}, "'trajectoryId'"),
        ({"X-Amzn-SageMaker-Job-Arn": "my-job"}, "'jobArn'"),
    ],
    ids=["no job", "no trajectory", "no ARN"],
)
def test_headers_that_are_missing_or_wrong_are_named(
    headers: dict[str, Any], message: str, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, extra_headers=headers)
    assert_readable(refusal.value, "ValidationException", message)


def test_a_path_that_there_is_not_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.embeddings.create(model="default", input="hello")
    assert "/v1/embeddings" in refusal.value.response.json()["Message"]


def test_a_key_that_is_no_token_is_refused_under_strict_auth(strict_server: Server, job_arn: str) -> None:
    with openai.OpenAI(**options(strict_server, job_arn)) as client:
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            ask(client)
        message = "Authentication failed: Please make sure your API Key is valid"
        assert_readable(refusal.value, "AccessDeniedException", message)
        with pytest.raises(openai.PermissionDeniedError):
            client.models.list()


def test_what_the_model_refuses_arrives_in_its_own_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, temperature=3)
    assert refusal.value.body == {
        "message": "`temperature` must be a number between 0 and 2.",
        "type": "BadRequestError",
        "param": "temperature",
        "code": 400,
    }


@pytest.mark.parametrize(("status", "exception"), [(429, openai.RateLimitError), (503, openai.InternalServerError)])
def test_the_model_servers_status_passes_through(
    status: int, exception: type[openai.APIStatusError], database: Path, job_arn: str
) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(b'{"error":{"message":"later","code":"busy"}}', status, more_head="retry-after: 7\r\n")

    with (
        model_server(refuse) as model,
        running_server(Settings(port=0, database=str(database), model=model.url)) as server,
        openai.OpenAI(**options(server, job_arn)) as client,
        pytest.raises(exception) as refusal,
    ):
        ask(client)
    assert refusal.value.body == {"message": "later", "code": "busy"}
    assert refusal.value.response.headers["retry-after"] == "7"


def test_an_answer_that_breaks_off_is_an_error_and_not_a_short_answer(database: Path, job_arn: str) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b'data: {"choices": [{"index": 0, "delta": {"content": "One"}}]}\n\n'])
        exchange.cut()

    with (
        model_server(breaks_off) as model,
        running_server(Settings(port=0, database=str(database), model=model.url)) as server,
        openai.OpenAI(**options(server, job_arn)) as client,
    ):
        stream = client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        assert next(stream).choices[0].delta.content == "One"
        with pytest.raises(openai.APIConnectionError):
            next(stream)
