"""Many streams open at once, and plain samples beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tests.load.connections import Connections
from tests.load.conversation import Conversation, digest, model_answer
from tests.load.ledger import Attempt, Ledger, Told
from tests.load.process import Progress
from tests.raw_client import SAMPLE, STREAM

#: Seconds that a stream may take.
PATIENCE = 120.0

#: Clients that sample meanwhile, and the seconds that each of them pauses between two samples.
SAMPLERS, PAUSE = 8, 0.1


async def hold_streams(progress: Progress, url: str, *, streams: int, events: int, pace: float, samples: int) -> Ledger:
    """Open streams, a trajectory each, and sample while all of them are open, until all have ended."""
    loop = asyncio.get_running_loop()
    ledger, connections = Ledger(), Connections()
    opened = asyncio.Semaphore(0)
    options = {"stream": True, "events": events, "pace": pace, "together": streams}
    started = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(streams):
            group.create_task(_stream(f"stream-{number}", url, ledger, connections, opened, options))
        async with asyncio.timeout(PATIENCE):
            for _ in range(streams):
                await opened.acquire()
        for number in range(SAMPLERS):
            group.create_task(_sample(f"beside-{number}", url, ledger, connections, samples // SAMPLERS))
    ledger.seconds = loop.time() - started
    connections.close()
    return ledger


async def _stream(
    name: str,
    url: str,
    ledger: Ledger,
    connections: Connections,
    opened: asyncio.Semaphore,
    options: Mapping[str, object],
) -> None:
    body = Conversation(name).request(name, **options)
    ledger.told[name] = Told([attempt := Attempt(0, digest(body))])
    reply = await connections.call(url, STREAM, body, name, PATIENCE, begun=opened.release)
    attempt.is_answered = reply.is_acknowledged
    if not reply.is_whole:
        ledger.wrong.append(f"{name}: {reply.outcome} after {len(reply.pieces)} pieces")
    elif reply.pieces != model_answer(body).pieces:
        ledger.wrong.append(f"{name}: other pieces than the model's: {reply.pieces}")


async def _sample(name: str, url: str, ledger: Ledger, connections: Connections, count: int) -> None:
    loop = asyncio.get_running_loop()
    told = ledger.told[name] = Told()
    for number in range(count):
        body = Conversation(name).request(f"{name}/{number}")
        told.attempts.append(Attempt(number, digest(body)))
        sent = loop.time()
        reply = await connections.call(url, SAMPLE, body, name)
        ledger.delays.append(loop.time() - sent)
        told.attempts[-1].is_answered = reply.is_acknowledged
        if reply.body != model_answer(body).body:
            ledger.wrong.append(f"{name}/{number}: {reply.outcome} {reply.body!r}")
        await asyncio.sleep(PAUSE)  # so that they take about as long as the streams
