"""Agents behind HTTP: rollout servers, AgentCore apps, Lambda's runtime-interface emulator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from emulator.trainer.agents import AgentFailed
from emulator.trainer.agents.answers import check_reply
from emulator.trainer.http import HTTPError, Origin, Reply

#: Seconds between two looks whether a server is there.
LOOK = 0.2

#: Seconds that one such look may take.
LOOK_TIMEOUT = 5.0

SESSION_HEADER = "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id"
INVOKE = "/2015-03-31/functions/function/invocations"


class HTTPAgent:
    """A server that is asked for rollouts with POST, and with GET whether it is ready."""

    answers_when_done = False

    def __init__(self, origin: Origin, ask: str, ready: str) -> None:
        self._origin = origin
        self._ask = ask
        self._ready = ready

    async def start(self, patience: float) -> None:
        """Wait until it says that it is ready. Raises AgentFailed."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while problem := await self._problem():
            if loop.time() > deadline:
                where = f"{self._origin.authority}{self._ready}"
                raise AgentFailed(f"the agent at {where} was not ready within {patience:g} s: {problem}")
            await asyncio.sleep(LOOK)

    async def _problem(self) -> str:
        """Why it is not ready, or nothing. One without such a page is, as it answers."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                reply = await self._origin.send("GET", self._ready)
        except HTTPError as error:
            return str(error)
        except TimeoutError:
            return f"no answer within {LOOK_TIMEOUT:g} s"
        return "" if reply.status < 500 else f"it answered {reply.status}"

    async def roll_out(self, request: Mapping[str, Any], trajectory_id: str) -> None:
        """Post the request. Raises AgentFailed."""
        try:
            reply = await self._origin.send("POST", self._ask, request, self._headers(trajectory_id))
        except HTTPError as error:
            raise AgentFailed(f"the agent gave no answer: {error}") from None
        check_reply(reply.status, reply.body)

    async def pass_on(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Post somebody else's request as it is. Raises HTTPError."""
        return await self._origin.send("POST", self._ask, body, headers)

    def _headers(self, _trajectory_id: str) -> dict[str, str]:
        return {}

    async def aclose(self) -> None:
        """End the connections; the server may notice."""
        await self._origin.aclose()


class RolloutServer(HTTPAgent):
    """`POST /rollout`, or whatever path the URL has; `GET /health` beside it."""

    def __init__(self, url: str) -> None:
        """Raises ValueError."""
        origin = Origin(url)
        path = origin.path or "/rollout"
        super().__init__(origin, path + origin.query, f"{path.rpartition('/')[0]}/health")


class AgentCoreServer(HTTPAgent):
    """An AgentCore app: `POST /invocations`, a session for each rollout; `GET /ping`."""

    def __init__(self, url: str) -> None:
        """Raises ValueError."""
        origin = Origin(url)
        prefix = origin.path.removesuffix("/invocations")
        super().__init__(origin, f"{prefix}/invocations{origin.query}", f"{prefix}/ping")

    def _headers(self, trajectory_id: str) -> dict[str, str]:
        # ASSUMED: one session a rollout, so that AgentCore gives each a machine of its own.
        return {SESSION_HEADER: session_id(trajectory_id)}


class LambdaServer(HTTPAgent):
    """A Lambda function in a container, behind the runtime-interface emulator."""

    def __init__(self, url: str) -> None:
        """Raises ValueError."""
        origin = Origin(url)
        super().__init__(origin, origin.path or INVOKE, "/")


def session_id(trajectory_id: str) -> str:
    """The trajectory's id, made as long as AgentCore demands: 33 characters at least."""
    return trajectory_id.ljust(33, "-")
