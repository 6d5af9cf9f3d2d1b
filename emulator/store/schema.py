"""The tables. Times are microseconds since 1970, UTC.

`migrations/` must lead to exactly these; a test holds them together.
"""

from __future__ import annotations

import time

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

#: The migration that leads to these tables.
REVISION = "0007"

metadata = MetaData()

#: SQLite counts rows up by itself only in what it calls INTEGER, which has 64 bits there.
_ROW = BigInteger().with_variant(Integer, "sqlite")

#: Jobs whose samples are accepted with `--jobs strict` too: those that were created, and those that were registered.
known_jobs = Table(
    "known_jobs",
    metadata,
    Column("job_arn", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

#: Jobs of the control plane.
jobs = Table(
    "jobs",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column("job_arn", Text, nullable=False, unique=True),
    Column("category", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role_arn", Text, nullable=False),
    Column("schema_version", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("transitions", Text, nullable=False),  # JSON, as are those that follow it, and the document
    Column("output", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("failure_reason", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("document", Text, nullable=False),
    Column("runner", Text),  # which of `runners` does it, where several servers share the database
    Index("jobs_by_name", "category", "name"),
    Index("jobs_by_time", "category", "created_at", "id"),
    Index("jobs_by_status", "category", "status", "id"),
    sqlite_autoincrement=True,
)

trajectories = Table(
    "trajectories",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column("job_arn", Text, nullable=False),
    Column("trajectory_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("completion", Text),  # how it was sealed, kept when the reward arrives
    Column("rewards", JSON(none_as_null=True)),
    Column("created_at", BigInteger, nullable=False),
    Column("completed_at", BigInteger),
    Column("rewarded_at", BigInteger),
    # Given out by the database where several processes write to it; one process alone counts by itself.
    Column("next_number", Integer, nullable=False, server_default="0"),
    # Of a rollout that was dispatched:
    Column("group_id", Text),  # which rollouts are of the same prompt
    Column("instance", Text),  # the dataset's row, in JSON
    UniqueConstraint("job_arn", "trajectory_id", name="one_trajectory_a_key"),
    CheckConstraint(
        # A condition on NULL is neither true nor false, and a check that is not false holds: hence `IS NOT NULL`.
        "(status = 'open' AND completion IS NULL AND completed_at IS NULL AND rewards IS NULL)"
        " OR (status IN ('ready', 'failed') AND completion IS NOT NULL AND completion = status"
        " AND completed_at IS NOT NULL AND rewards IS NULL)"
        " OR (status = 'reward-received' AND completion IS NOT NULL AND completion IN ('ready', 'failed')"
        " AND completed_at IS NOT NULL AND rewards IS NOT NULL AND rewarded_at IS NOT NULL)",
        name="status_fits",
    ),
    Index("trajectories_by_job", "job_arn", "id"),
    Index("trajectories_by_status", "status", "id"),
    sqlite_autoincrement=True,  # an id is never used again: a late turn must not find another trajectory
)

#: What jobs have done: a row for each rollout of a step, from its first attempt on.
job_rollouts = Table(
    "job_rollouts",
    metadata,
    Column("job", _ROW, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("part", Text, primary_key=True),  # "train-3": of which step
    Column("row", Integer, primary_key=True),  # of the dataset
    Column("member", Integer, primary_key=True),  # of the row's group
    Column("trajectory_id", Text, nullable=False),  # of the last attempt
    Column("result", Text),  # JSON, when it is over
)

#: Executions of pipelines; the pipelines themselves are moto's.
pipeline_executions = Table(
    "pipeline_executions",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column("arn", Text, nullable=False, unique=True),
    Column("pipeline", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("display_name", Text),
    Column("description", Text),
    Column("failure_reason", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("parameters", Text, nullable=False),  # JSON, as are those that follow it
    Column("steps", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("runner", Text),  # as a job's
    UniqueConstraint("pipeline", "token", name="one_execution_a_token"),
    Index("pipeline_executions_by_time", "pipeline", "created_at", "id"),
    sqlite_autoincrement=True,
)

#: The small columns stand first: SQLite reads them without touching the pages that hold the bodies.
turns = Table(
    "turns",
    metadata,
    Column("id", _ROW, primary_key=True),
    Column(
        "trajectory",
        _ROW,
        ForeignKey("trajectories.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("number", Integer, nullable=False),  # order of arrival, from 0
    Column("status", Text, nullable=False),
    Column("path", Text, nullable=False),  # what was asked of the model server
    Column("http_status", Integer),  # absent: the model server gave no answer
    Column("content_type", Text),
    Column("error", Text),
    Column("arrived_at", BigInteger, nullable=False),
    Column("first_byte_at", BigInteger),
    Column("ended_at", BigInteger, nullable=False),
    Column("base", Integer),  # the number of the turn whose request this one begins like
    Column("shared", Integer, nullable=False, server_default="0"),  # so many bytes of it, which `request` leaves out
    Column("request", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    UniqueConstraint("trajectory", "number", name="one_turn_a_number"),
    # Not `IN`: for more than two values SQLite makes a table of them each time that it checks.
    CheckConstraint(
        "status = 'completed' OR status = 'failed' OR status = 'aborted' OR status = 'discarded'", name="turn_status"
    ),
    CheckConstraint("(base IS NULL AND shared = 0) OR (base IS NOT NULL AND shared > 0)", name="shared_with_its_base"),
)

#: Which client token asked for what, so that a repeated request has no second effect.
client_tokens = Table(
    "client_tokens",
    metadata,
    Column("operation", Text, primary_key=True),
    Column("job_arn", Text, primary_key=True),
    Column("token", Text, primary_key=True),
    Column("parameters", Text, nullable=False),  # their digest
    Column(
        "trajectory",
        _ROW,
        ForeignKey("trajectories.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
)

#: Each process that writes to a shared database, and when it began what it committed last: when the answer to a commit
#: was lost, this says whether it took place. A file's only server has no use for it, and a copy leaves it out.
writers = Table(
    "writers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("last_commit", BigInteger, nullable=False),
)

#: The servers that do jobs and pipeline executions of a shared database, and when each was last heard of, by the clock
#: of the database: what belongs to one that is not here any more is another's to go on with. Left out likewise.
runners = Table(
    "runners",
    metadata,
    Column("id", Text, primary_key=True),
    Column("seen_at", BigInteger, nullable=False),
)

#: What was captured, each table after those that it refers to.
contents = [table for table in metadata.sorted_tables if table not in (writers, runners)]


def now() -> int:
    """A time as the tables have it."""
    return time.time_ns() // 1000
