"""aiobotocore does whole rollouts, several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from emulator.server import Server
from tests.clients.aws import SERVICE
from tests.clients.question import ANSWER
from tests.clients.rollouts import KEY_ID, REGION, SECRET, Conversation, message_of, scripted_answer, stored_rollout

Exchanges = list[tuple[bytes, bytes]]


@asynccontextmanager
async def runtime_client(url: str) -> AsyncIterator[Any]:
    """A client of the runtime that tries once."""
    async with get_session().create_client(
        SERVICE,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=AioConfig(retries={"total_max_attempts": 1}),
    ) as client:
        yield client


async def sampled(client: Any, key: dict[str, str], request: bytes) -> bytes:
    answer = await client.sample(**key, Body=request)
    async with answer["Body"] as body:
        whole: bytes = await body.read()
    return whole


async def streamed_in_chunks(client: Any, key: dict[str, str], request: bytes) -> bytes:
    answer = await client.sample_with_response_stream(**key, Body=request)
    async with answer["Body"] as body:
        return b"".join([piece async for piece in body.iter_chunks(64)])


async def streamed_in_sevens(client: Any, key: dict[str, str], request: bytes) -> bytes:
    answer = await client.sample_with_response_stream(**key, Body=request)
    pieces = []
    async with answer["Body"] as body:
        while piece := await body.read(7):
            pieces.append(piece)
    return b"".join(pieces)


WAYS = {"sampled": sampled, "in-chunks": streamed_in_chunks, "in-sevens": streamed_in_sevens}


async def rollout(client: Any, job_arn: str, way: str, number: int) -> Exchanges:
    """A whole rollout, from its first turn to its reward."""
    key = {"JobArn": job_arn, "TrajectoryId": f"{way}-{number}"}
    conversation, exchanges = Conversation(), []
    wants_more = True
    while wants_more:
        request = conversation.request(stream=way != "sampled", user=str(number))
        exchanges.append((request, await WAYS[way](client, key, request)))
        wants_more = conversation.take(message_of(*exchanges[-1], ""))
    assert conversation.answer == ANSWER
    await client.complete_rollout(**key)
    await client.update_reward(**key, Rewards=[number / 4])
    return exchanges


def test_rollouts_at_once_are_stored_each_in_its_trajectory(server: Server, job_arn: str, database: Path) -> None:
    keys = [(way, number) for way in WAYS for number in range(4)]

    async def all_at_once() -> list[Exchanges]:
        async with runtime_client(server.url) as client:
            return await asyncio.gather(*(rollout(client, job_arn, way, number) for way, number in keys))

    done = asyncio.run(all_at_once())
    for (way, number), exchanges in zip(keys, done, strict=True):
        assert [answer for _, answer in exchanges] == [scripted_answer(request) for request, _ in exchanges]
        found = stored_rollout(database, f"{way}-{number}")
        found.assert_whole_rollout()
        assert found.exchanges == exchanges
        assert found.state == ("reward-received", "ready", [number / 4], True)


def test_refusals_are_exceptions_of_the_service_model(server: Server, job_arn: str) -> None:
    async def refusals() -> None:
        key = {"JobArn": job_arn, "TrajectoryId": "refusals"}
        async with runtime_client(server.url) as client:
            with pytest.raises(client.exceptions.ResourceNotFoundException):
                await client.complete_rollout(**key)
            request = Conversation().request()
            await sampled(client, key, request)
            with pytest.raises(client.exceptions.ConflictException, match="Cannot transition trajectory"):
                await client.update_reward(**key, Rewards=[1.0])
            await client.complete_rollout(**key)
            for way in WAYS.values():
                with pytest.raises(client.exceptions.ValidationException, match="not in valid status"):
                    await way(client, key, request)

    asyncio.run(refusals())
