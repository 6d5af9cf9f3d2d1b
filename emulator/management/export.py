"""`GET /_emulator/export`: what was captured, as a file that is written while it is sent.

It is made in a thread of its own with a connection of its own, piece by piece, as fast as the client takes it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from starlette.requests import Request

from emulator.export import FILES, InvalidExport, NoParquet, Plan, Tally, Tokenizer, export
from emulator.export.tokenizing import ask_model_server
from emulator.inference.model_server import ModelRequest, ModelServer
from emulator.management.captured import FILTER_PARAMETERS, read_parameters
from emulator.management.emulator import Emulator
from emulator.protocol.answer import Answer, Client, StreamAnswer
from emulator.protocol.endpoint import while_connected
from emulator.protocol.errors import ValidationException
from emulator.store.queries import TrajectoryFilter

log = logging.getLogger(__name__)


async def export_trajectories(emulator: Emulator, request: Request) -> Answer | StreamAnswer:
    """The file. Raises ValidationException, and whatever goes wrong before its first piece."""
    plan = _plan(request)
    try:
        plan.check()
    except (InvalidExport, NoParquet) as error:
        raise ValidationException(str(error)) from None
    if request.method == "HEAD":
        return Answer(b"", content_type=FILES[plan.file])
    work = _Work(emulator, plan)
    try:
        first = await while_connected(work.next(), request.scope)
    except BaseException:
        work.close()
        raise

    async def relay(client: Client) -> None:
        piece = first
        try:
            while piece is not None:
                await client.drained()
                client.write(piece)
                piece = await work.next()
        finally:
            work.close()
        log.info("exported %s: %s", plan.schema, work.tally)

    return StreamAnswer(relay, 200, FILES[plan.file])


def _plan(request: Request) -> Plan:
    """Raises ValidationException."""
    given = read_parameters(request.query_params, _PARAMETERS)
    which = TrajectoryFilter(
        given.get("job"),
        given.get("status"),
        given.get("since"),
        given.get("until"),
        trajectory_id=given.get("trajectory"),
        group=given.get("group"),
        eligible=given.get("eligible", False),
    )
    named = {"for": "purpose", "min_reward": "least_reward", "max_reward": "most_reward"}
    others = ("format", "for", "file", "advantage", "failed", "min_reward", "max_reward")
    return Plan(which, **{named.get(name, name): given[name] for name in others if name in given})


class _Work:
    """The thread that makes the file."""

    def __init__(self, emulator: Emulator, plan: Plan) -> None:
        self.tally = Tally()
        self._asking = _Asking(emulator.model_server)
        self._pieces = _pieces(emulator, plan, self.tally, Tokenizer(self._asking))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="job-runtime-local export")

    def next(self) -> Awaitable[bytes | None]:
        """The next piece; None at the end."""
        return asyncio.get_running_loop().run_in_executor(self._thread, next, self._pieces, None)

    def close(self) -> None:
        """Have the thread stop as soon as it can, and let go of its connection."""
        self.tally.stopped = True
        self._asking.cancel()
        self._thread.submit(self._pieces.close)
        self._thread.shutdown(wait=False)


def _pieces(emulator: Emulator, plan: Plan, tally: Tally, tokenizer: Tokenizer) -> Generator[bytes]:
    with emulator.store.reading() as connection:
        yield from export(connection, plan, tally, tokenizer)


class _Asking:
    """Asks the model server from another thread than its own."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._question: Future[tuple[int, bytes]] | None = None
        self._cancelled = False

    def __call__(self, request: ModelRequest) -> tuple[int, bytes]:
        """Raises ModelServerError, CancelledError."""
        if self._cancelled:
            raise CancelledError
        self._question = asyncio.run_coroutine_threadsafe(ask_model_server(self._server, request), self._loop)
        return self._question.result()

    def cancel(self) -> None:
        """Ask nothing more."""
        self._cancelled = True
        if self._question is not None:
            self._question.cancel()


def _read_switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _read_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no finite number")
    return number


_PARAMETERS: dict[str, Callable[[str], Any]] = {
    **FILTER_PARAMETERS,
    "trajectory": str,
    "group": str,
    "eligible": _read_switch,
    "failed": _read_switch,
    "min_reward": _read_number,
    "max_reward": _read_number,
    "format": str,
    "for": str,
    "file": str,
    "advantage": str,
}
