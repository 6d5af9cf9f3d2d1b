"""The control plane: its operations by their targets, and the jobs that they begin."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from emulator.calls import Calls
from emulator.conduct import Conduct
from emulator.operations import CONTROL_OPERATIONS, Control
from emulator.protocol import aws_json
from emulator.protocol.answer import Answer
from emulator.protocol.endpoint import Authenticate, Authorize, Endpoint
from emulator.protocol.errors import aws_json_body
from emulator.settings import Settings
from emulator.store import Store
from emulator.store.jobs import active_jobs

if TYPE_CHECKING:
    from emulator.job import Job
    from emulator.trainer.agents import Agent
    from emulator.trainer.jobs.runner import Jobs
    from emulator.trainer.jobs.services import Services

#: The real trainer's rate of new rollouts, a second.
AWS_RATE = 5.0


class ControlPlane:
    """CreateJob and its family, and the jobs under way."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        url: str,
        *,
        calls: Calls,
        authenticate: Authenticate,
        authorize: Authorize,
    ) -> None:
        """`url`: where this server is reached."""
        self._store = store
        self._make_services = partial(_services, settings, store, calls.conduct, url)
        self._jobs: Jobs | None = None
        control = Control(store, self, settings.region, settings.own_account, settings.limits == "aws")
        #: By what `X-Amz-Target` says.
        self.endpoints = {
            f"{aws_json.TARGET}{name}": Endpoint(
                name,
                partial(_answer, name, partial(function, control)),
                partial(aws_json.decode, name),
                calls=calls,
                error_body=aws_json_body,
                authenticate=authenticate,
                authorize=authorize,
                max_request_bytes=settings.max_request_bytes,
            )
            for name, function in CONTROL_OPERATIONS.items()
        }

    async def start(self) -> None:
        """Go on with the jobs that a server before this one has left. Raises StoreError."""
        if self._store.is_shared:
            return  # there are none: who would go on with them could not be said
        for job in await self._store.write(("", ""), active_jobs):
            self._runner().resume(job)

    def leave_off(self) -> None:
        """Begin to leave off where the jobs are: the server is stopping."""
        if self._jobs is not None:
            self._jobs.leave_off()

    async def aclose(self) -> None:
        """Returns when the jobs have been left off where they are."""
        if self._jobs is not None:
            await self._jobs.aclose()

    def begin(self, job: Job) -> None:
        """Start on a job that was just stored."""
        self._runner().begin(job)

    def stop(self, arn: str) -> None:
        """Have a job under way end soon."""
        self._runner().stop(arn)

    def _runner(self) -> Jobs:
        if self._jobs is None:
            from emulator.trainer.jobs.runner import Jobs

            self._jobs = Jobs(self._make_services())
        return self._jobs


async def _answer(name: str, function: Callable[..., Awaitable[Mapping[str, Any]]], **members: Any) -> Answer:
    return aws_json.answer(name, await function(**members))


def _services(settings: Settings, store: Store, conduct: Conduct, url: str) -> Services:
    from emulator.trainer.jobs.aws import AWS
    from emulator.trainer.jobs.services import Services
    from emulator.trainer.jobs.untracked import Untracked
    from emulator.trainer.runtime import LocalRuntime

    key_id, secret = (settings.key_pairs[0].split(":") if settings.key_pairs else ["local", "local"])[:2]
    return Services(
        store=store,
        runtime=LocalRuntime(store, conduct, endpoint=url, region=settings.region),
        cloud=AWS(url, settings.region, (key_id, secret)),
        tracker=Untracked(),
        find_agent=partial(_find_agent, settings, url),
        export=partial(_export, store),
        rate=AWS_RATE if settings.limits == "aws" else None,
    )


def _find_agent(settings: Settings, url: str, arn: str, timeout: float) -> Agent:
    """The local agent that stands for an ARN. Raises JobFailed."""
    from emulator.trainer.agents import AgentContext, InvalidAgent, agent_environment, find_agent
    from emulator.trainer.jobs.services import JobFailed

    target = settings.agent_targets.get(arn) or settings.agent_targets.get("")
    if target is None:
        raise JobFailed(f"ClientError: no agent here stands for {arn}: start the server with --agent {arn}=TARGET")
    try:
        return find_agent(target, AgentContext(agent_environment(url, settings.region, os.environ), timeout))
    except InvalidAgent as error:
        raise JobFailed(f"ClientError: the agent of {arn}: {error}") from None


async def _export(store: Store, job_arn: str) -> bytes:
    from emulator.export import Plan, Tally, export
    from emulator.store.queries import TrajectoryFilter

    plan = Plan(TrajectoryFilter(job_arn))
    return await store.read(lambda connection: b"".join(export(connection, plan, Tally())))
