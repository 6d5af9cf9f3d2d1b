"""Which local agent stands for the ARN of an agent: what `--agent` says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SHAPES = {
    "lambda": re.compile(
        r"(arn:aws[a-z\-]*:lambda:([a-z0-9\-]+):([0-9]{12}):function:([A-Za-z0-9_\-]+))(?::([A-Za-z0-9_$\-]+))?"
    ),
    "bedrock-agentcore": re.compile(
        r"(arn:aws[a-z\-]*:bedrock-agentcore:([a-z0-9\-]+):([0-9]{12}):runtime/([A-Za-z0-9_\-]+))"
        r"(?:(?::|/runtime-endpoint/)([A-Za-z0-9_\-]+))?"
    ),
}

#: Beside ARNs in a table of agents: the agent of all that are not there.
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class AgentArn:
    """The ARN of a Lambda function or an AgentCore runtime."""

    service: str  #: lambda or bedrock-agentcore
    resource: str  #: the ARN without its qualifier
    region: str
    account: str
    name: str  #: of the function; of a runtime its id
    qualifier: str | None  #: a version, an alias, or an endpoint of a runtime

    @classmethod
    def parse(cls, text: str) -> AgentArn:
        """Take an ARN apart. Raises ValueError for one of something else."""
        for service, shape in _SHAPES.items():
            if found := shape.fullmatch(text):
                resource, region, account, name, qualifier = found.groups()
                return cls(service, resource, region, account, name, qualifier)
        raise ValueError(
            f"{text!r} is the ARN of no agent: arn:aws:lambda:REGION:ACCOUNT:function:NAME[:VERSION-OR-ALIAS] or "
            "arn:aws:bedrock-agentcore:REGION:ACCOUNT:runtime/ID[:QUALIFIER]"
        )

    def __str__(self) -> str:
        return self.resource if self.qualifier is None else f"{self.resource}:{self.qualifier}"


@dataclass(frozen=True, slots=True)
class AgentMap:
    """Targets, as `emulator.trainer.agents` names them, by what they stand for."""

    targets: Mapping[AgentArn, str]
    default: str | None = None  #: the target of all others

    @classmethod
    def parse(cls, texts: Sequence[str]) -> AgentMap:
        """Read `ARN=AGENT` and `AGENT`. Raises ValueError."""
        targets: dict[AgentArn, str] = {}
        default = None
        for text in texts:
            key, is_for, target = text.partition("=") if text.startswith("arn:") else (DEFAULT, "=", text)
            if not is_for or not target:
                raise ValueError(f"{text!r} names no agent: ARN=AGENT")
            if key == DEFAULT:
                if default is not None:
                    raise ValueError(f"there are two agents for all other ARNs: {default} and {target}")
                default = target
                continue
            arn = AgentArn.parse(key)
            if arn in targets:
                raise ValueError(f"{arn} has two agents: {targets[arn]} and {target}")
            targets[arn] = target
        return cls(targets, default)

    def find(self, arn: str, qualifier: str | None = None) -> str | None:
        """The target of an ARN: of its qualifier if that has one, else of the ARN without; never the default.

        Raises ValueError for an ARN of something else.
        """
        wanted = AgentArn.parse(arn)
        qualifier = wanted.qualifier or qualifier
        for each in (qualifier, None):
            for known, target in self.targets.items():
                if (known.resource, known.qualifier) == (wanted.resource, each):
                    return target
        return None
