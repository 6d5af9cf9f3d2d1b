"""Which local agent a job's ARN means."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from emulator.agent_map import AgentMap
from emulator.settings import InvalidSetting, Settings
from emulator.trainer.agents import Agent, AgentContext, InvalidAgent, agent_environment, find_agent
from emulator.trainer.jobs.services import JobFailed

#: The agent that a Lambda function is, if it was created here.
CreatedFunction = Callable[[str], Awaitable[Agent | None]]


def check_agents(agents: AgentMap) -> None:
    """Raises InvalidSetting for a target that is none."""
    for target in (*agents.targets.values(), *filter(None, [agents.default])):
        try:
            find_agent(target)
        except InvalidAgent as error:
            raise InvalidSetting(f"agents: {error}") from None


class JobAgents:
    """The local agents that stand for ARNs."""

    def __init__(self, settings: Settings, url: str, created_function: CreatedFunction) -> None:
        """`url`: where this server is reached."""
        self._map = settings.agent_map
        self._url = url
        self._region = settings.region
        self._created_function = created_function

    async def find(self, arn: str, qualifier: str | None, seconds: float) -> Agent:
        """That of the map, a Lambda function that was created here, or the agent of all others. Raises JobFailed."""
        target = self._map.find(arn, qualifier)
        if target is None:
            created = await self._created_function(arn) if ":lambda:" in arn else None
            if created is not None:
                return created
            target = self._map.default
        if target is None:
            raise JobFailed(f"ClientError: no agent here stands for {arn}: start the server with --agent {arn}=TARGET")
        return find_agent(target, AgentContext(agent_environment(self._url, self._region, os.environ), seconds))
