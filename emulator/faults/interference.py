"""What the service's own faults do to a call: before its operation, after it, or to its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from starlette.types import Scope

from emulator.faults.answers import format_seconds
from emulator.faults.faults import Faults, Strike
from emulator.faults.kinds import KINDS
from emulator.faults.model import model_strikes
from emulator.faults.pieces import Point
from emulator.protocol import errors
from emulator.protocol.answer import Answer, BrokenStream, Client, StreamAnswer
from emulator.protocol.auth import BAD_TOKEN, EXPIRED
from emulator.protocol.endpoint import EXCHANGE, Exchange, Handler
from emulator.protocol.errors import AWSError

# ASSUMED: the wording.
#: What the service says where the fault has no message.
_MESSAGES = {
    "AccessDeniedException": "You are not authorized to perform this operation.",
    "ConflictException": "The request conflicts with the state of the trajectory.",
    "InternalServiceError": "An internal error occurred.",
    "ResourceNotFoundException": "The requested resource was not found.",
    "ServiceQuotaExceededException": "The request exceeds a quota of the account.",
    "ThrottlingException": "Rate exceeded",
    "ValidationException": "The request is not valid.",
}


class Interference:
    """Has calls suffer the faults that strike them. Stands between an endpoint and its operation."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def __call__(
        self, operation: str, handler: Handler, scope: Scope, arguments: Mapping[str, Any]
    ) -> Answer | StreamAnswer:
        """Run an operation, with the faults that this call suffers. Raises AWSError."""
        struck = self._faults.strike(operation, arguments["job_arn"], arguments["trajectory_id"])
        before, late, ending = _sorted([strike for strike in struck if not KINDS[strike.fault.kind].of_model])
        exchange: Exchange = scope["extensions"][EXCHANGE]
        await _delay(before)
        when = None if ending is None else ending.fault.option("when") or "before"
        if ending is not None and when == "before":
            await _end(ending, scope, exchange)
        mark = model_strikes.set(tuple(strike for strike in struck if KINDS[strike.fault.kind].of_model))
        try:
            answer = await handler(**arguments)
        finally:
            model_strikes.reset(mark)
        # From here on a stream has a turn under way, which ends only where it is relayed.
        if isinstance(answer, StreamAnswer):
            if ending is None:
                return _with_late_end(answer, late) if late else answer
            if when == "during":
                return _dropped_on_the_way(answer, Point.of(ending.fault), exchange)
            with suppress(BrokenStream):
                await answer.relay(_Void())
        await _delay(late)
        if ending is not None:
            await _end(ending, scope, exchange)
        return answer


def _sorted(ours: list[Strike]) -> tuple[list[Strike], list[Strike], Strike | None]:
    """The latencies before, those after, and the fault that ends the call otherwise, if there is one."""
    latencies = [strike for strike in ours if strike.fault.kind == "latency"]
    before = [strike for strike in latencies if strike.fault.option("when") == "before"]
    after = [strike for strike in latencies if strike.fault.option("when") == "after"]
    ending = next((strike for strike in ours if strike.fault.kind != "latency"), None)
    return before, after, ending


async def _end(strike: Strike, scope: Scope, exchange: Exchange) -> NoReturn:
    """Raise the fault's error, or hang up."""
    if strike.fault.kind == "drop":
        await _drop(exchange)
    raise _error(strike, scope)


def _error(strike: Strike, scope: Scope) -> AWSError:
    fault = strike.fault
    name = fault.raises
    assert name is not None, "kinds that raise nothing do not come here"
    message = fault.message
    if message is None:
        message = _expired(scope) if fault.kind == "expired-credentials" else _MESSAGES[name]
    retry_after = fault.option("retry_after")
    kind: type[AWSError] = getattr(errors, name)
    return kind(message, retry_after=None if retry_after is None else format_seconds(retry_after))


def _expired(scope: Scope) -> str:
    """What expired credentials of the sort that the request brought are told."""
    is_token = any(name == b"authorization" and value[:7].lower() == b"bearer " for name, value in scope["headers"])
    return BAD_TOKEN if is_token else EXPIRED


async def _drop(exchange: Exchange) -> NoReturn:
    """Hang up; then everything goes the way of a client that went away, which cancels this."""
    exchange.drop()
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def _delay(latencies: list[Strike]) -> None:
    for strike in latencies:
        await asyncio.sleep(strike.seconds("seconds"))


class _Void:
    """A client that is no longer there."""

    def write(self, piece: bytes) -> bool:  # noqa: ARG002
        return True

    async def drained(self) -> None:
        pass


class _UpToThePoint:
    """A client whose connection is dropped at a point of the answer."""

    def __init__(self, client: Client, point: Point, exchange: Exchange) -> None:
        self._client, self._point, self._exchange = client, point, exchange
        self._is_dropped = False

    def write(self, piece: bytes) -> bool:
        goes_on = not self._is_dropped
        for part, is_after in self._point.split(piece) if goes_on else ():
            if is_after:
                self._exchange.drop()
                self._is_dropped = True
                return False
            goes_on = self._client.write(part)
        return goes_on

    async def drained(self) -> None:
        if self._is_dropped:
            await _drop(self._exchange)
        await self._client.drained()


class _LastPieceHeld:
    """A client that gets all but the last piece."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.held: bytes | None = None

    def write(self, piece: bytes) -> bool:
        before, self.held = self.held, piece
        return before is None or self._client.write(before)

    async def drained(self) -> None:
        await self._client.drained()


def _dropped_on_the_way(answer: StreamAnswer, point: Point, exchange: Exchange) -> StreamAnswer:
    async def relay(client: Client) -> None:
        await answer.relay(_UpToThePoint(client, point, exchange))
        await _drop(exchange)  # it had no more than that

    return StreamAnswer(relay, answer.status, answer.content_type)


def _with_late_end(answer: StreamAnswer, late: list[Strike]) -> StreamAnswer:
    """A stream whose last piece waits, with the turn stored."""

    async def relay(client: Client) -> None:
        reader = _LastPieceHeld(client)
        await answer.relay(reader)
        await _delay(late)
        if reader.held is not None:
            await client.drained()
            client.write(reader.held)

    return StreamAnswer(relay, answer.status, answer.content_type)
