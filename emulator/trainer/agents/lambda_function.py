"""An agent that is a Lambda function of a file or a module on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emulator.trainer.agents import AgentContext, AgentFailed
from emulator.trainer.agents.answers import check_document, shortened
from emulator.trainer.agents.lambda_process import Function, Invocation
from emulator.trainer.agents.lambda_workers import LambdaWorkers


class LambdaFunction:
    """`FILE.py[:HANDLER]`, or `MODULE:HANDLER` from the working directory."""

    #: It may have handed its work to somebody else.
    answers_when_done = False

    def __init__(self, target: str, context: AgentContext) -> None:
        """Raises ValueError."""
        source, _, handler = target.partition(":")
        is_file = source.endswith(".py")
        if not source or (not handler and not is_file):
            raise ValueError("a Lambda function is named like lambda:FILE.py[:HANDLER] or lambda:MODULE:HANDLER")
        path = Path(source).absolute()
        if is_file and not path.is_file():
            raise ValueError(f"there is no file {source}")
        name = path.stem if is_file else source
        self._context = context
        region = context.environment.get("AWS_REGION", "us-west-2")
        self._function = Function(
            name=name,
            arn=f"arn:aws:lambda:{region}:123456789012:function:{name}",
            folder=str(path.parent) if is_file else str(Path.cwd()),
            source=str(path) if is_file else source,
            handler=handler,
            environment=os.environ | dict(context.environment) | {"AWS_LAMBDA_FUNCTION_NAME": name},
            timeout=context.timeout,
        )
        self._workers: LambdaWorkers | None = None

    async def start(self, patience: float) -> None:
        """Import it once, so that what is wrong with it is known before the first rollout. Raises AgentFailed."""
        name, show = self._function.name, self._context.show
        self._workers = LambdaWorkers(self._function, lambda line: show(f"[{name}] {line}"))
        if (problem := await self._workers.start(patience)) is not None:
            raise AgentFailed(shortened(problem))

    async def roll_out(self, request: Mapping[str, Any], trajectory_id: str) -> None:  # noqa: ARG002 - of no use to Lambda
        """Invoke it. Whoever is cancelled while the handler runs ends its process. Raises AgentFailed."""
        assert self._workers is not None, "started"
        check_invocation(await self._workers.invoke(request))

    async def aclose(self) -> None:
        """End the processes."""
        if self._workers is not None:
            await self._workers.aclose()


def check_invocation(invocation: Invocation) -> None:
    """Raises AgentFailed if the function raised, has gone, or refused the rollout."""
    if invocation.problem is not None:
        raise AgentFailed(shortened(invocation.problem))
    check_document(invocation.answer)
