"""A model server that suffers faults: around the real one, so that all else takes what it does for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar

from emulator.faults.answers import ChangedAnswer, corrupted, cut, overflow, refusal, tool_call, truncated
from emulator.faults.faults import Strike
from emulator.faults.pieces import before_and_after, events
from emulator.inference.model_server import (
    Health,
    ModelAnswer,
    ModelRequest,
    ModelServer,
    ModelServerTimeout,
    ModelServerUnavailable,
)

#: What the model server suffers of the call that is served here.
model_strikes: ContextVar[tuple[Strike, ...]] = ContextVar("model_strikes", default=())


class FaultyModelServer:
    """The `ModelServer` that a plan of faults makes of another one."""

    def __init__(self, server: ModelServer, *, answer_timeout: float, idle_timeout: float) -> None:
        self._server = server
        self._answer_timeout = answer_timeout
        self._idle_timeout = idle_timeout

    async def start(self) -> None:
        """Start the real one."""
        await self._server.start()

    async def send(self, request: ModelRequest) -> ModelAnswer:
        """Forward the request, and let the answer suffer what strikes this call. Raises ModelServerError."""
        struck = model_strikes.get()
        if not struck:
            return await self._server.send(request)
        slow = [strike for strike in struck if strike.fault.kind == "slow"]
        if slow:
            await self._wait(sum(strike.seconds("first") for strike in slow))
        other = next((strike for strike in struck if strike.fault.kind != "slow"), None)
        answer = await self._answer(request, other)
        return ChangedAnswer(answer, self._slowly(answer, slow)) if slow else answer

    async def health(self) -> Health:
        """The real one's."""
        return await self._server.health()

    def reset(self) -> None:
        """Have the real one forget."""
        self._server.reset()

    async def aclose(self) -> None:
        """End the real one."""
        await self._server.aclose()

    async def _answer(self, request: ModelRequest, strike: Strike | None) -> ModelAnswer:
        if strike is None:
            return await self._server.send(request)
        fault = strike.fault
        match fault.kind:
            case "model-down":
                raise ModelServerUnavailable("Connection refused by the model server")
            case "model-timeout":
                await asyncio.sleep(strike.seconds("seconds"))
                raise self._no_answer()
            case "model-error":
                return refusal(fault.option("status"), fault.message, fault.retry_after)
            case "context-overflow":
                return overflow(fault.message)
            case "tool-call":
                return await tool_call(request, fault.option("how"))
        answer = await self._server.send(request)
        return ChangedAnswer(answer, self._changes(answer, strike))

    def _changes(self, answer: ModelAnswer, strike: Strike) -> AsyncIterator[bytes]:
        changes: Mapping[str, Callable[[ModelAnswer, Strike], AsyncIterator[bytes]]] = {
            "cut": cut,
            "truncate": truncated,
            "corrupt": corrupted,
            "stall": self._stalled,
        }
        return changes[strike.fault.kind](answer, strike)

    async def _stalled(self, answer: ModelAnswer, strike: Strike) -> AsyncIterator[bytes]:
        is_over = False
        async for part, is_after in before_and_after(answer, strike.fault):
            if is_after and not is_over:
                is_over = True
                await self._be_silent(strike)
            yield part
        if not is_over:
            await self._be_silent(strike)

    async def _be_silent(self, strike: Strike) -> None:
        for_ever = strike.fault.seconds is None
        await self._wait(self._idle_timeout + 1 if for_ever else strike.seconds("seconds"), begun=True)

    async def _slowly(self, answer: ModelAnswer, slow: Sequence[Strike]) -> AsyncIterator[bytes]:
        async for event in events(answer):
            await self._wait(sum(strike.seconds("seconds") for strike in slow), begun=True)
            yield event

    async def _wait(self, seconds: float, *, begun: bool = False) -> None:
        """Say nothing for so long. Raises ModelServerTimeout, when nobody would wait that long."""
        limit = self._idle_timeout if begun else self._answer_timeout
        await asyncio.sleep(min(seconds, limit))
        if seconds > limit:
            raise self._nothing_more() if begun else self._no_answer()

    def _no_answer(self) -> ModelServerTimeout:
        seconds = f"{self._answer_timeout:g}"
        return ModelServerTimeout(f"No answer from the model server within {seconds} s (--model-answer-timeout)")

    def _nothing_more(self) -> ModelServerTimeout:
        seconds = f"{self._idle_timeout:g}"
        return ModelServerTimeout(
            f"Nothing more of an answer from the model server for {seconds} s (--model-idle-timeout)"
        )
