"""AgentCore runtimes: those of `--agent`, and what moto 5.2.5 makes with ARNs that no trainer takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from emulator.agent_map import AgentArn, AgentMap
from emulator.aws.request import Reply, Request
from emulator.protocol.errors import AWSError, ResourceNotFoundException, ValidationException
from emulator.trainer.agents import Agent, AgentContext, AgentFailed, InvalidAgent, find_agent
from emulator.trainer.agents.servers import SESSION_HEADER, HTTPAgent
from emulator.trainer.http import HTTPError

_RUNTIME = re.compile(r"/runtimes/([^/]+)/?")
_INVOKE = re.compile(r"/runtimes/(.+)/invocations/?")

#: When the agents of the map were made, as far as anybody asks.
_MADE = "2026-01-01T00:00:00Z"

#: Seconds that an agent gets until it can be asked.
PATIENCE = 60.0


class RuntimeClientError(AWSError):
    """The agent failed."""

    status = 424


class AgentCore:
    """GetAgentRuntime and ListAgentRuntimes of the control plane, and InvokeAgentRuntime."""

    def __init__(self, agents: AgentMap, context: AgentContext, made: Callable[[str], list[Any]]) -> None:
        """`made`: the runtimes that moto has in a region."""
        self._agents = agents
        self._context = context
        self._made = made
        self._started: dict[str, Agent] = {}

    async def serve_control(self, request: Request) -> Reply | None:
        """Answer for runtimes of the map; None: it is moto's."""
        if request.method == "POST" and request.path.rstrip("/") == "/runtimes":
            return self._list(request)
        found = _RUNTIME.fullmatch(request.path)
        if request.method == "GET" and found is not None:
            for arn in self._mapped(request.region):
                if arn.name == found[1]:
                    return _json({**_summary(arn), "createdAt": _MADE, **_NOT_TOLD})
        return None

    async def serve(self, request: Request) -> Reply | None:
        """Have an agent invoked; None for another request. Raises AWSError."""
        found = _INVOKE.fullmatch(request.path)
        if request.method != "POST" or found is None:
            return None
        try:
            arn = AgentArn.parse(found[1])
            target = self._agents.find(found[1], request.parameters.get("qualifier")) or self._agents.default
        except ValueError:
            raise ValidationException(f"{found[1]} is the ARN of no agent runtime") from None
        if target is None:
            raise ResourceNotFoundException(
                f"No agent here stands for {arn}: start the server with --agent {arn.resource}=AGENT"
            )
        session = request.header(SESSION_HEADER.lower()) or str(uuid4())
        return await self._invoke(await self._agent(target), request, session)

    async def aclose(self) -> None:
        """Let the agents go."""
        for agent in self._started.values():
            await agent.aclose()

    async def _agent(self, target: str) -> Agent:
        if target not in self._started:
            try:
                agent = find_agent(target, self._context)
                await agent.start(PATIENCE)
            except (InvalidAgent, AgentFailed) as error:
                raise RuntimeClientError(str(error)) from None
            if target in self._started:  # another request was quicker
                await agent.aclose()
            else:
                self._started[target] = agent
        return self._started[target]

    async def _invoke(self, agent: Agent, request: Request, session: str) -> Reply:
        headers = [(SESSION_HEADER.lower().encode(), session.encode("latin-1", "replace"))]
        if isinstance(agent, HTTPAgent):
            try:
                reply = await agent.pass_on(request.body, {SESSION_HEADER: session})
            except HTTPError as error:
                raise RuntimeClientError(f"The agent gave no answer: {error}") from None
            if not 200 <= reply.status < 300:
                # OBSERVED: the wording.
                raise RuntimeClientError(
                    f"Received error ({reply.status}) from runtime. "
                    "Please check your CloudWatch logs for more information."
                )
            kind = (reply.content_type or "application/json").encode("latin-1", "replace")
            return Reply(200, [*headers, (b"content-type", kind)], reply.body)
        try:
            document = json.loads(request.body)
            await agent.roll_out(document, session)
        except ValueError:
            raise ValidationException("The payload is not JSON") from None
        except AgentFailed as error:
            raise RuntimeClientError(str(error)) from None
        # A function's answer is for the trainer, which asks for none.
        return Reply(200, [*headers, (b"content-type", b"application/json")], b"{}")

    def _list(self, request: Request) -> Reply:
        """All of them on one page."""
        made = [_plain(each.to_summary()) for each in self._made(request.region)]
        return _json({"agentRuntimes": [*map(_summary, self._mapped(request.region)), *made]})

    def _mapped(self, region: str) -> Iterator[AgentArn]:
        """The runtimes of the map, each once."""
        seen = set()
        for arn in self._agents.targets:
            if arn.service == "bedrock-agentcore" and arn.region == region and arn.resource not in seen:
                seen.add(arn.resource)
                yield arn


#: Required members that a runtime of the map has nothing to say for.
_NOT_TOLD = {
    "roleArn": "arn:aws:iam::123456789012:role/local",
    "networkConfiguration": {"networkMode": "PUBLIC"},
    "lifecycleConfiguration": {},
}


def _summary(arn: AgentArn) -> dict[str, Any]:
    return {
        "agentRuntimeArn": arn.resource,
        "agentRuntimeId": arn.name,
        "agentRuntimeVersion": "1",
        "agentRuntimeName": re.sub("-[A-Za-z0-9]{10}$", "", arn.name),
        "description": "An agent on this machine",
        "lastUpdatedAt": _MADE,
        "status": "READY",
    }


def runtimes_of_moto(account: str, region: str) -> list[Any]:
    """The runtimes that were made with CreateAgentRuntime."""
    from moto.bedrockagentcorecontrol.models import bedrockagentcorecontrol_backends

    return list(bedrockagentcorecontrol_backends[account][region].list_agent_runtimes())


def _plain(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, str) else f"{value:%Y-%m-%dT%H:%M:%SZ}" for key, value in summary.items()}


def _json(document: object) -> Reply:
    return Reply(200, [(b"content-type", b"application/json")], json.dumps(document).encode())


def give_usable_arns() -> None:
    """Have moto's runtimes be named as AWS names them: moto 5.2.5 says `agent/UUID:VERSION`, which no trainer takes."""
    from moto.bedrockagentcorecontrol import models
    from moto.moto_api._internal import mock_random

    made_by_moto = models.AgentRuntime
    if made_by_moto.__module__ != models.__name__:
        return

    class AgentRuntime(made_by_moto):  # type: ignore[misc, valid-type]
        """A runtime with the ARN and the id that AWS would give it."""

        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.agent_runtime_id = f"{self.agent_runtime_name}-{mock_random.get_random_hex(10)}"
            self._name()
            self.versions[0] |= {"agentRuntimeId": self.agent_runtime_id, "agentRuntimeArn": self.agent_runtime_arn}

        def update(self, **given: Any) -> None:
            self.agent_runtime_arn = "agent/:"  # which moto takes apart
            super().update(**given)
            self._name()
            self.versions[-1]["agentRuntimeArn"] = self.agent_runtime_arn

        def _name(self) -> None:
            arn = f"arn:aws:bedrock-agentcore:{self.region_name}:{self.account_id}:runtime/{self.agent_runtime_id}"
            self.agent_runtime_arn = arn

    models.AgentRuntime = AgentRuntime  # type: ignore[misc, assignment]
