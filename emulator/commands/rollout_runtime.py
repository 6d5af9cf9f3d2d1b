"""The emulator that a run of rollouts uses: one that runs somewhere, or one in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from emulator.commands import Refused
from emulator.inference.model_server import ModelServerError
from emulator.server import CannotListen, Server
from emulator.settings import InvalidSetting, Settings
from emulator.store import DatabaseError, DatabaseInUse
from emulator.trainer.remote_runtime import RemoteRuntime
from emulator.trainer.runtime import LocalRuntime, Runtime

#: Seconds between two looks whether the model server is ready.
LOOK = 0.25


@asynccontextmanager
async def running_runtime(endpoint: str, patience: float) -> AsyncIterator[Runtime]:
    """That of an emulator that runs, when its model server is ready. Raises Refused, RuntimeGone."""
    try:
        runtime = RemoteRuntime(endpoint)
    except ValueError as error:
        raise Refused(f"--endpoint: {error}") from None
    try:
        await runtime.start()
        await _until_ready(runtime.problem, patience)
        yield runtime
    finally:
        await runtime.aclose()


@asynccontextmanager
async def embedded_runtime(settings: Settings, patience: float) -> AsyncIterator[Runtime]:
    """That of an emulator that runs in this process while the block does. Raises Refused."""
    try:
        server = Server(settings)
    except (CannotListen, InvalidSetting) as error:
        raise Refused(str(error)) from None

    async def problem() -> str | None:
        health = await server.app.model_server.health()
        return None if health.ready else health.detail

    started = asyncio.Event()
    serving = asyncio.create_task(server.serve(started.set, until_signal=False))
    starting = asyncio.create_task(started.wait())
    try:
        await asyncio.wait((serving, starting), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            await serving
        await _until_ready(problem, patience)
        yield LocalRuntime(server.app.store, server.app.conduct, endpoint=server.url, region=settings.region)
    except DatabaseInUse as error:
        raise Refused(f"{error}; --endpoint URL uses that server") from None
    except (DatabaseError, ModelServerError) as error:
        raise Refused(str(error)) from None
    finally:
        starting.cancel()
        server.stop()
        await asyncio.wait((serving,))


async def _until_ready(problem: Callable[[], Awaitable[str | None]], patience: float) -> None:
    """Wait for the model server. Raises Refused."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while (text := await problem()) is not None:
        if loop.time() > deadline:
            raise Refused(f"the model server is not ready after {patience:g} s (--wait): {text}")
        await asyncio.sleep(LOOK)
