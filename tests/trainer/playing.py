"""Playing the trainer's part in a test: an emulator, rollouts against an agent, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from emulator.commands.rollout_runtime import embedded_runtime
from emulator.settings import Settings
from emulator.testing import running_server
from emulator.trainer.agents import AgentContext, find_agent
from emulator.trainer.dispatch import Dispatcher, Limits, roll_out_all
from emulator.trainer.remote_runtime import RemoteRuntime
from emulator.trainer.rollouts import Recorded, Rollout, RolloutResult, Row
from emulator.trainer.runtime import Runtime
from tests.conftest import JOB_ARN

T = TypeVar("T")

#: Enough for what a test does, unless something is broken.
QUICK = Limits(rate=None, timeout=20.0, retries=0, concurrency=8)

MEMORY = Settings(port=0, durability="memory", trajectories="dispatched", jobs="strict", log_level="error")


def alone(work: Coroutine[Any, Any, T]) -> T:
    """Run it in an event loop in another thread: signals stay the test's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


@asynccontextmanager
async def a_runtime(kind: str, settings: Settings = MEMORY) -> AsyncIterator[Runtime]:
    """An emulator, `local` in this event loop, or `remote`."""
    if kind == "local":
        async with embedded_runtime(settings, 10) as local:
            yield local
        return
    with running_server(settings) as server:
        remote = RemoteRuntime(server.url)
        await remote.start()
        try:
            yield remote
        finally:
            await remote.aclose()


def rollouts_of(rows: Sequence[Mapping[str, Any]], group_size: int = 1) -> list[Rollout]:
    """As a dataset of these rows gives them."""
    numbered = [Row(number, row.get("prompt", "Hello"), row) for number, row in enumerate(rows)]
    return [Rollout(row, member) for row in numbered for member in range(group_size)]


async def play(
    runtime: Runtime,
    agent: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    limits: Limits = QUICK,
    group_size: int = 1,
    context: AgentContext | None = None,
) -> list[RolloutResult]:
    """Rollouts of these rows, in their order."""
    found = find_agent(agent, context)
    await runtime.register_job(JOB_ARN)
    await found.start(10)
    results: list[RolloutResult] = []

    async def finished(result: RolloutResult) -> None:
        results.append(result)

    try:
        dispatcher = Dispatcher(agent=found, runtime=runtime, job_arn=JOB_ARN, limits=limits)
        await roll_out_all(dispatcher, rollouts_of(rows, group_size), finished)
    finally:
        await found.aclose()
    return sorted(results, key=lambda result: (result.row, result.member))


def played(
    agent: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    kind: str = "local",
    context: AgentContext | None = None,
    group_size: int = 1,
    **limits: Any,
) -> list[tuple[RolloutResult, Recorded]]:
    """The results, each with what the emulator recorded of its last trajectory."""

    async def work() -> list[tuple[RolloutResult, Recorded]]:
        async with a_runtime(kind) as runtime:
            results = await play(
                runtime, agent, rows, limits=replace(QUICK, **limits), context=context, group_size=group_size
            )
            recorded = [await runtime.recorded(JOB_ARN, result.trajectory_id) for result in results]
            return [(result, each) for result, each in zip(results, recorded, strict=True) if each is not None]

    return alone(work())
