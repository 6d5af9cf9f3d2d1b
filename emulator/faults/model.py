"""A model server that suffers faults: around the real one, so that all else takes what it does for real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from emulator.faults.faults import Strike
from emulator.faults.pieces import before_and_after, events, is_event_stream
from emulator.inference.model_server import (
    BrokenAnswer,
    Health,
    ModelAnswer,
    ModelRequest,
    ModelServer,
    ModelServerTimeout,
    ModelServerUnavailable,
)

#: What the model server suffers of the call that is served here.
model_strikes: ContextVar[tuple[Strike, ...]] = ContextVar("model_strikes", default=())

#: No UTF-8, and no JSON.
GARBAGE = b"\xff\xfe\x00\x9f\x92\x96\xc3\x28"

UNKNOWN_TOOL = "a_tool_that_was_not_offered"
BROKEN_ARGUMENTS = '{"expression": "6 * '


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
        slow = next((strike for strike in struck if strike.fault.kind == "slow"), None)
        if slow is not None:
            await self._wait(slow.seconds("first"))
        other = next((strike for strike in struck if strike is not slow), None)
        answer = await self._answer(request, other)
        return answer if slow is None else ChangedAnswer(answer, self._slowly(answer, slow))

    async def health(self) -> Health:
        """The real one's."""
        return await self._server.health()

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
                return await overflow(request, fault.message)
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

    async def _slowly(self, answer: ModelAnswer, strike: Strike) -> AsyncIterator[bytes]:
        async for event in events(answer):
            await self._wait(strike.seconds("seconds"), begun=True)
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


class ChangedAnswer:
    """A ModelAnswer with another body than it had."""

    def __init__(self, answer: ModelAnswer, body: AsyncIterator[bytes]) -> None:
        self._answer = answer
        self._body = body

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields."""
        return self._answer.headers

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body

    def close(self) -> None:
        """Let go of the real answer."""
        self._answer.close()


class ReadyAnswer:
    """A ModelAnswer that is there as a whole."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body

    def close(self) -> None:
        """Nothing to let go of."""


def refusal(status: int, message: str | None, retry_after: float | None, kind: str | None = None) -> ReadyAnswer:
    """An error of a model server's own, as OpenAI-compatible servers write it."""
    text = f"The model server answered with status {status}" if message is None else message
    error = {"message": text, "type": kind or "InternalServerError", "param": None, "code": status}
    headers = {"content-type": "application/json"}
    if retry_after is not None:
        headers["retry-after"] = f"{retry_after:g}"
    return ReadyAnswer(status, headers, json.dumps({"error": error}).encode())


async def overflow(request: ModelRequest, message: str | None) -> ReadyAnswer:
    """What vLLM says of a conversation that is longer than the model's context."""
    if message is None:
        tokens = max(1, len(request.body) // 4)
        limit = 1 << max(0, tokens.bit_length() - 1)  # the largest power of two that it exceeds, or nearly
        limit = limit if limit < tokens else max(1, limit // 2)
        message = (
            f"This model's maximum context length is {limit} tokens. However, your request has {tokens} input tokens. "
            "Please reduce the length of the input messages."
        )
    return refusal(400, message, None, "BadRequestError")


async def tool_call(request: ModelRequest, how: str) -> ModelAnswer:
    """A call of a tool that cannot be called so, in the form that the request asks for."""
    from emulator.inference.scripted import ScriptedServer
    from emulator.inference.scripted.script import Reply, ToolCall

    def call(asked: Mapping[str, Any], _choice: int) -> Reply:
        tools = asked.get("tools")
        offered = tools[0]["function"]["name"] if tools else UNKNOWN_TOOL
        broken = ToolCall(offered, BROKEN_ARGUMENTS) if how == "arguments" else ToolCall(UNKNOWN_TOOL, "{}")
        return Reply(tool_calls=(broken,), finish_reason="tool_calls")

    return await ScriptedServer(call).send(request)


async def cut(answer: ModelAnswer, strike: Strike) -> AsyncIterator[bytes]:
    """The connection to the model server ends before the answer does."""
    size = 0
    async for part, is_after in before_and_after(answer, strike.fault):
        if is_after:
            break
        size += len(part)
        yield part
    raise BrokenAnswer(f"The connection ended after {size} bytes of the answer")


async def truncated(answer: ModelAnswer, strike: Strike) -> AsyncIterator[bytes]:
    """The answer ends too early, and its HTTP is in order."""
    async for part, is_after in before_and_after(answer, strike.fault):
        if is_after:
            break
        yield part


async def corrupted(answer: ModelAnswer, strike: Strike) -> AsyncIterator[bytes]:
    """Something in the answer is no JSON, or not even text."""
    is_done = False
    stream = is_event_stream(answer)
    how = strike.fault.option("how")
    async for part, is_after in before_and_after(answer, strike.fault):
        if is_after and not is_done:
            is_done = True
            yield _broken(part, how, stream)
        else:
            yield part
    if not is_done:
        yield _broken(b'data: {"id": "', how, stream)


def _broken(part: bytes, how: str, stream: bool) -> bytes:
    if how == "json":
        return part[: max(1, len(part) // 2)] + (b"\n\n" if stream else b"")
    return b"data: " + GARBAGE + b"\n\n" if stream else GARBAGE + part
