"""An HTTP client as its tests use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from emulator.inference.http_client import HTTPClient
from emulator.inference.http_connection import Answer
from emulator.inference.model_server import ModelServerError
from tests.inference import Server


@asynccontextmanager
async def client_of(server: Server, host: str = "127.0.0.1", **settings: Any) -> AsyncIterator[HTTPClient]:
    client = HTTPClient(host, server.port, **settings)
    try:
        yield client
    finally:
        await client.aclose()
        assert not client.connections


async def post(client: HTTPClient, body: bytes = b"{}") -> Answer:
    return await client.request("POST", "/v1/x", {"content-type": "application/json"}, body)


async def whole(answer: Answer) -> bytes:
    try:
        return b"".join([piece async for piece in answer])
    finally:
        answer.close()


async def failure_of(exchange: Awaitable[Answer]) -> ModelServerError:
    """The error of an exchange, whether its head or its body breaks."""
    with pytest.raises(ModelServerError) as caught:
        await whole(await exchange)
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a turn of the loop, no time
        await asyncio.sleep(0)
