"""Agents, to the trainer: who is asked for a rollout, and how `--agent` names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

#: Ways to name an agent, for people.
TARGETS = """\
http://HOST:PORT/rollout      a rollout server (GET /health says when it is ready)
agentcore:http://HOST:PORT    an AgentCore app: POST /invocations, GET /ping
lambda:FILE.py[:HANDLER]      a Lambda function, run in worker processes (HANDLER: lambda_handler, else handler)
lambda:MODULE:HANDLER         the same, found from the working directory
lambda:http://HOST:PORT       a Lambda runtime-interface emulator
python:MODULE:FUNCTION        a function in this process"""


class InvalidAgent(Exception):
    """An agent is named in a way that names none; the message says what would."""


class AgentFailed(Exception):
    """The agent refused the rollout, broke, or could not be reached; the message says which and why."""


class Agent(Protocol):
    """Who does rollouts."""

    #: Whether it is done when it has answered; else its work may go on, and it calls back.
    answers_when_done: bool

    async def start(self, patience: float) -> None:
        """Wait until it can be asked, at most so many seconds. Raises AgentFailed."""

    async def roll_out(self, request: Mapping[str, Any], trajectory_id: str) -> None:
        """Ask it for a rollout; returns when it has answered. Raises AgentFailed. May be cancelled."""

    async def aclose(self) -> None:
        """Let it go."""


@dataclass(frozen=True, slots=True)
class AgentContext:
    """What agents that run on this machine are given."""

    environment: Mapping[str, str] = field(default_factory=dict)  #: variables beside those of this process
    timeout: float = 600.0  #: seconds that a Lambda function may take
    show: Callable[[str], None] = print  #: takes each line that a worker process writes


def find_agent(target: str, context: AgentContext | None = None) -> Agent:
    """The agent that a target names. Raises InvalidAgent."""
    context = context or AgentContext()
    kind, _, rest = target.partition(":")
    try:
        if kind in {"http", "https"}:
            from emulator.trainer.agents.servers import RolloutServer

            return RolloutServer(target)
        if kind == "agentcore":
            from emulator.trainer.agents.servers import AgentCoreServer

            return AgentCoreServer(rest)
        if kind == "lambda" and rest.startswith(("http://", "https://")):
            from emulator.trainer.agents.servers import LambdaServer

            return LambdaServer(rest)
        if kind == "lambda":
            from emulator.trainer.agents.lambda_function import LambdaFunction

            return LambdaFunction(rest, context)
        if kind == "python":
            from emulator.trainer.agents.python_function import PythonFunction

            return PythonFunction(rest)
    except ValueError as error:
        raise InvalidAgent(f"{target}: {error}") from None
    raise InvalidAgent(f"{target}: names no agent; these would:\n{TARGETS}")


def agent_environment(endpoint: str, region: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What an agent needs in its environment to find the runtime; credentials only where it has none."""
    found = {
        "AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME": endpoint,
        "RFT_RUNTIME_ENDPOINT": endpoint,
        "OPENAI_BASE_URL": f"{endpoint}/v1",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
    }
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"):
        if not environment.get(name):
            found[name] = "local"
    return found
