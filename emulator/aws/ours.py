"""What is answered before moto is asked, and lives as long as the server: functions that run, agents that answer."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from emulator.aws.agentcore import AgentCore, give_usable_arns, runtimes_of_moto
from emulator.aws.functions import Functions
from emulator.aws.request import Reply, Request
from emulator.settings import Settings
from emulator.trainer.agents import AgentContext, agent_environment
from emulator.trainer.jobs.aws import AWS


class Ours:
    """Lambda's Invoke and AgentCore. `functions` are agents of jobs too. Belongs to one event loop."""

    def __init__(self, settings: Settings, url: str, load: Callable[[], Awaitable[object]]) -> None:
        """`load` has moto hold what it shall hold; it raises AWSError where there is no moto."""
        account, region = settings.own_account, settings.region
        key_id, secret = (settings.key_pairs[0].split(":") if settings.key_pairs else ["local", "local"])[:2]
        self.functions = Functions(url, region, account, (key_id, secret), AWS(url, region, (key_id, secret)), load)
        context = AgentContext(agent_environment(url, region, os.environ))
        self._agentcore = AgentCore(settings.agent_map, context, lambda region: runtimes_of_moto(account, region))
        self._load = load

    async def serve(self, request: Request) -> Reply | None:
        """A reply to a request for one of our own; None: it is moto's. Raises AWSError."""
        match request.service:
            case "lambda":
                return await self.functions.serve(request)
            # A client signs for either with the same name.
            case "bedrock-agentcore":
                if (reply := await self._agentcore.serve(request)) is not None:
                    return reply
                await self._load()
                give_usable_arns()
                return await self._agentcore.serve_control(request)
        return None

    async def aclose(self) -> None:
        """End what runs."""
        await self._agentcore.aclose()
        await self.functions.aclose()
