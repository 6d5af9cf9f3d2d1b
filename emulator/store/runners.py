"""Who does the jobs and pipeline executions of a database that several servers share.

A runner is a server that is heard of: it says so every few seconds, in the table `runners`. Whatever is under way
belongs to one runner, and to the next that looks once its own was not heard of for `LEASE` seconds. Who does a job
names its runner in each transaction (`require_runner`): one that was only slow, or cut off, can write nothing more to a
job that was taken from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from emulator.job import Job
from emulator.pipeline import Execution
from emulator.store.jobs import active_jobs_of, take_orphaned_jobs
from emulator.store.pipelines import executions_under_way_of, take_orphaned_executions
from emulator.store.statements import Statement, Transaction

#: Seconds after which a runner that was not heard of is gone.
LEASE = 10

# By the clock of the database: those of its servers may differ.
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

_SEEN = Statement(
    text(
        f"INSERT INTO runners VALUES (:its_runner, {_NOW}) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"  # noqa: S608
    )
)

# One that was heard of in times to come, too: a standby that took over may have an earlier clock.
_FORGET = Statement(text(f"DELETE FROM runners WHERE abs(seen_at - {_NOW}) > :lease"))  # noqa: S608

_LEAVE = Statement(text("DELETE FROM runners WHERE id = :its_runner"))


@dataclass(frozen=True, slots=True)
class Held:
    """What a runner has to do, as it is stored."""

    jobs: list[Job]
    executions: list[Execution]
    taken: int  #: how many of them were another's


def hold(transaction: Transaction, runner: str) -> Held:
    """Say that a runner is there, and give it what nobody does; all that it has to do."""
    transaction.alone()  # of two that look at once, the second sees what the first has taken
    transaction.run(_SEEN, its_runner=runner)
    transaction.run(_FORGET, lease=LEASE * 1_000_000)
    taken = take_orphaned_jobs(transaction, runner) + take_orphaned_executions(transaction, runner)
    return Held(active_jobs_of(transaction, runner), executions_under_way_of(transaction, runner), taken)


def leave(transaction: Transaction, runner: str) -> None:
    """The runner does nothing any more: another may go on at once."""
    transaction.run(_LEAVE, its_runner=runner)
