"""Answers as a model server gives them that something has gone wrong with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

from emulator.faults.faults import Strike
from emulator.faults.pieces import before_and_after, is_event_stream
from emulator.inference.model_server import BrokenAnswer, ModelAnswer, ModelRequest

#: No UTF-8, and no JSON.
GARBAGE = b"\xff\xfe\x00\x9f\x92\x96\xc3\x28"

#: Tokens that the model can look at, where a prompt is longer than that.
CONTEXT = 4096

UNKNOWN_TOOL = "a_tool_that_was_not_offered"
BROKEN_ARGUMENTS = '{"expression": "6 * '


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


def format_seconds(seconds: float) -> str:
    """As Retry-After has them: HTTP knows whole ones only, and so do some clients."""
    return str(int(seconds) if seconds == int(seconds) else seconds)


def refusal(
    status: int,
    message: str | None,
    retry_after: float | None,
    kind: str = "InternalServerError",
    param: str | None = None,
) -> ReadyAnswer:
    """An error of a model server's own, as OpenAI-compatible servers write it."""
    text = f"The model server answered with status {status}" if message is None else message
    error = {"message": text, "type": kind, "param": param, "code": status}
    headers = {"content-type": "application/json"}
    if retry_after is not None:
        headers["retry-after"] = format_seconds(retry_after)
    return ReadyAnswer(status, headers, json.dumps({"error": error}).encode())


def overflow(message: str | None) -> ReadyAnswer:
    """What vLLM says of a prompt that is longer than the model's context."""
    tokens = CONTEXT + 1  # vLLM stops counting there
    text = (
        f"This model's maximum context length is {CONTEXT} tokens. However, your prompt contains at least {tokens} "
        "input tokens, which exceeds this limit even without any output tokens. "
        "Please reduce the length of the input prompt. "
        f"(parameter=input_tokens, value={tokens})"
    )
    return refusal(400, text if message is None else message, None, "BadRequestError", "input_tokens")


async def tool_call(request: ModelRequest, how: str) -> ModelAnswer:
    """A call of a tool that cannot be called so, in the form that the request asks for."""
    from emulator.inference.scripted import ScriptedServer
    from emulator.inference.scripted.reply import Reply, ToolCall
    from emulator.inference.scripted.request import Request
    from emulator.inference.scripted.rules import Rule, Rules

    def call(asked: Request) -> Reply:
        tools = asked.body.get("tools")
        offered = tools[0]["function"]["name"] if tools else UNKNOWN_TOOL
        broken = ToolCall(offered, BROKEN_ARGUMENTS) if how == "arguments" else ToolCall(UNKNOWN_TOOL)
        return Reply(tool_calls=(broken,))

    return await ScriptedServer(Rules([Rule(call)])).send(request)


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
