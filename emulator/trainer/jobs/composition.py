"""From settings to what jobs work with."""

from __future__ import annotations

from functools import partial

from emulator.conduct import Conduct
from emulator.export import Plan, Tally, export
from emulator.job import Job
from emulator.settings import Settings
from emulator.store import Store
from emulator.store.queries import TrajectoryFilter
from emulator.trainer.jobs.agents import CreatedFunction, JobAgents
from emulator.trainer.jobs.aws import AWS
from emulator.trainer.jobs.policy import POLICY_UPDATES
from emulator.trainer.jobs.services import Services, Tracker
from emulator.trainer.jobs.untracked import Untracked
from emulator.trainer.mlflow.server import MlflowServer
from emulator.trainer.runtime import LocalRuntime

#: The real trainer's rate of new rollouts, a second.
AWS_RATE = 5.0


def make_services(
    settings: Settings,
    url: str,
    *,
    store: Store,
    conduct: Conduct,
    mlflow: MlflowServer | None,
    created_function: CreatedFunction,
) -> Services:
    """`url`: where this server is reached; `mlflow`: who hears of jobs."""
    policy = POLICY_UPDATES[settings.policy_update]
    return Services(
        store=store,
        runtime=LocalRuntime(store, conduct, endpoint=url, region=settings.region),
        cloud=make_cloud(settings, url),
        tracker=_tracker(mlflow, store, policy.note),
        policy=policy,
        find_agent=JobAgents(settings, url, created_function).find,
        export=partial(_export, store),
        rate=AWS_RATE if settings.limits == "aws" else None,
    )


def make_cloud(settings: Settings, url: str) -> AWS:
    """The rest of AWS: this server's, unless the environment names another."""
    key_id, secret = (settings.key_pairs[0].split(":") if settings.key_pairs else ["local", "local"])[:2]
    return AWS(url, settings.region, (key_id, secret))


def _tracker(mlflow: MlflowServer | None, store: Store, note: str) -> Tracker:
    if mlflow is None:
        return Untracked()
    from emulator.trainer.mlflow.tracker import MlflowTracker

    return MlflowTracker(mlflow, store, note)


async def _export(store: Store, job: Job) -> bytes:
    plan = Plan(TrajectoryFilter(job.arn, since=job.created_at))  # not those of a deleted one of the same name
    return await store.read_patiently(lambda connection: b"".join(export(connection, plan, Tally())))
