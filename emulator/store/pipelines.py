"""Pipeline executions in the database: the changes that the writer runs, and the queries."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, bindparam, insert, or_, select, tuple_, update

from emulator.pipeline import UNDER_WAY, Execution, ExecutionStatus, PipelineError, Step, StepStatus
from emulator.store.schema import pipeline_executions as executions
from emulator.store.schema import runners
from emulator.store.statements import UNLESS_THERE, Statement, Transaction


class ExecutionNotFound(PipelineError):
    """There is no such execution."""


class ExecutionTaken(PipelineError):
    """Another server that shares the database goes on with it."""


_COLUMNS = [column for column in executions.c if column not in (executions.c.id, executions.c.runner)]

_CREATE = Statement(
    insert(executions)
    .inline()
    .values({column: bindparam(column.name, type_=column.type) for column in (*_COLUMNS, executions.c.runner)}),
    UNLESS_THERE,
)

_BEGUN = Statement(
    select(*_COLUMNS).where(
        executions.c.pipeline == bindparam("its_pipeline"), executions.c.token == bindparam("its_token")
    )
)

_FIND = Statement(select(*_COLUMNS).where(executions.c.arn == bindparam("its_arn")).with_for_update())

_CHANGED = ("status", "steps", "failure_reason", "modified_at")

_SAVE = Statement(
    update(executions)
    .where(executions.c.arn == bindparam("its_arn"))
    .values({executions.c[name]: bindparam(f"new_{name}", type_=executions.c[name].type) for name in _CHANGED})
)

_is_under_way = or_(*(executions.c.status == status.value for status in sorted(UNDER_WAY)))

_UNDER_WAY = Statement(select(*_COLUMNS).where(_is_under_way).order_by(executions.c.id))

_UNDER_WAY_OF = Statement(
    select(*_COLUMNS).where(_is_under_way, executions.c.runner == bindparam("its_runner")).order_by(executions.c.id)
)

_TAKE_ORPHANS = Statement(
    update(executions)
    .where(_is_under_way, or_(executions.c.runner.is_(None), executions.c.runner.not_in(select(runners.c.id))))
    .values(runner=bindparam("its_runner"))
)

_RUNNER = Statement(select(executions.c.runner).where(executions.c.arn == bindparam("its_arn")).with_for_update())


def create_execution(
    transaction: Transaction, execution: Execution, *, runner: str | None = None
) -> tuple[Execution, bool]:
    """Store a new execution; that, and whether it is new: the same token begins none twice.

    `runner`: who does it, where several servers share the database.
    """
    created = transaction.run(_CREATE, **_row(execution), runner=runner)
    row = transaction.row(_BEGUN, its_pipeline=execution.pipeline, its_token=execution.token)
    assert row is not None
    return _execution_of(row), bool(created)


def change_execution(
    transaction: Transaction, arn: str, change: Callable[[Execution], Execution], *, runner: str | None = None
) -> Execution:
    """Replace an execution by what `change` makes of it; that. `runner`: who does so in doing it.

    Raises ExecutionNotFound, ExecutionTaken, and what `change` raises.
    """
    if runner is not None and transaction.row(_RUNNER, its_arn=arn) != (runner,):
        raise ExecutionTaken(f"Pipeline execution {arn} is another server's by now, or gone")
    row = transaction.row(_FIND, its_arn=arn)
    if row is None:
        raise ExecutionNotFound(f"There is no pipeline execution {arn}")
    changed = change(_execution_of(row))
    values = _row(changed)
    transaction.run(_SAVE, its_arn=arn, **{f"new_{name}": values[name] for name in _CHANGED})
    return changed


def executions_under_way(transaction: Transaction) -> list[Execution]:
    """Those that somebody has to go on with, the oldest first."""
    return [_execution_of(row) for row in transaction.rows(_UNDER_WAY)]


def take_orphaned_executions(transaction: Transaction, runner: str) -> int:
    """Make executions under way whose runner is gone this one's; how many."""
    return transaction.run(_TAKE_ORPHANS, its_runner=runner)


def executions_under_way_of(transaction: Transaction, runner: str) -> list[Execution]:
    """Executions under way that a runner has to do."""
    return [_execution_of(row) for row in transaction.rows(_UNDER_WAY_OF, its_runner=runner)]


def find_execution(connection: Connection, arn: str) -> Execution | None:
    """The execution of that ARN."""
    row = connection.execute(select(*_COLUMNS).where(executions.c.arn == arn)).one_or_none()
    return None if row is None else _execution(row._mapping)


def list_executions(
    connection: Connection,
    pipeline: str,
    *,
    created_after: int | None,
    created_before: int | None,
    sort_by: str,
    descending: bool,
    limit: int,
    after: tuple[Any, int] | None,
) -> list[tuple[Execution, tuple[Any, int]]]:
    """One page, and where each stands in the order; `after` is where the last one of the page before stood.

    `sort_by`: CreationTime or PipelineExecutionArn.
    """
    key = executions.c.arn if sort_by == "PipelineExecutionArn" else executions.c.created_at
    place = tuple_(key, executions.c.id)
    query = select(executions).where(executions.c.pipeline == pipeline).limit(limit)
    query = query.order_by(*((key.desc(), executions.c.id.desc()) if descending else (key, executions.c.id)))
    if created_after is not None:
        query = query.where(executions.c.created_at > created_after)
    if created_before is not None:
        query = query.where(executions.c.created_at < created_before)
    if after is not None:
        query = query.where(place < after if descending else place > after)
    return [(_execution(row._mapping), (row._mapping[key.name], row.id)) for row in connection.execute(query)]


def _execution_of(row: tuple[Any, ...]) -> Execution:
    return _execution(dict(zip((column.name for column in _COLUMNS), row, strict=True)))


def _row(execution: Execution) -> dict[str, Any]:
    row = {column.name: getattr(execution, column.name) for column in _COLUMNS}
    return row | {
        "status": execution.status.value,
        "parameters": _dump(execution.parameters),
        "steps": _dump([asdict(step) for step in execution.steps]),
    }


def _execution(row: Mapping[Any, Any]) -> Execution:
    values = {column.name: row[column.name] for column in _COLUMNS}
    steps = (Step(**each | {"status": StepStatus(each["status"])}) for each in json.loads(values["steps"]))
    return Execution(
        **values
        | {
            "status": ExecutionStatus(values["status"]),
            "parameters": json.loads(values["parameters"]),
            "steps": tuple(steps),
        }
    )


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
