"""The tables' revision: finding it, making the tables of an empty database, upgrading those of an older one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from emulator.store.database import DatabaseError, one_line
from emulator.store.schema import REVISION, metadata


def revision(connection: Connection) -> str | None:
    """The migration that the database is at; None for an empty one. Raises DatabaseError for someone else's."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found
    if tables:
        raise DatabaseError(f"it belongs to something else (it has a table {tables[0]!r}); --database names another")
    return None


def require_current(connection: Connection) -> None:
    """Make sure that the database can be read as it is. Raises DatabaseError."""
    found = revision(connection)
    if found is None:
        raise DatabaseError("it has no tables yet: run `job-runtime-local db upgrade`")
    if found != REVISION:
        advice = "run `job-runtime-local db upgrade`" if found in _revisions() else "upgrade job-runtime-local"
        raise DatabaseError(f"its tables are of revision {found}, not {REVISION}: {advice}")


def require_unchanged(found: str | None) -> None:
    """Make sure that a database which was up to date once still is. Raises DatabaseError."""
    if found != REVISION:
        raise DatabaseError(f"its tables are of revision {found} now, not {REVISION}: somebody has upgraded them")


def is_older(found: str | None) -> bool:
    """Whether a database of that revision has to be upgraded; an empty one has not.

    Raises DatabaseError for one that is newer than this program.
    """
    if found is None or found == REVISION:
        return False
    if found not in _revisions():
        raise DatabaseError(
            f"the database is of revision {found}, which this version of job-runtime-local does not know: "
            "upgrade job-runtime-local, or give it another --database"
        )
    return True


def make_tables(connection: Connection) -> None:
    """Make an empty database's tables: the same as migrations make, without the third of a second to import Alembic."""
    metadata.create_all(connection)
    connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": REVISION})


def upgrade_tables(connection: Connection, found: str) -> None:
    """Run the migrations after `found`, all or none. Raises DatabaseError."""
    try:
        migrate(connection)
    except Exception as error:
        raise DatabaseError(
            f"upgrading it from revision {found} failed ({one_line(error)}); it is as it was"
        ) from error


def migrate(connection: Connection, target: str = "head") -> None:
    """Run the migrations up to a revision."""
    from alembic import command

    config = _alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, target)


def folder() -> Path:
    """Where the migrations are: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def _revisions() -> set[str]:
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}


def _alembic_config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    return config
