"""What tests of databases share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.store import migrations
from emulator.store.schema import REVISION
from tests.postgresql import PostgreSQL
from tests.postgresql_proxy import PostgreSQLProxy, postgresql_proxy


@pytest.fixture
def proxy(postgresql: PostgreSQL) -> Iterator[PostgreSQLProxy]:
    """A way to PostgreSQL on which messages are lost."""
    with postgresql_proxy(postgresql.port) as it:
        yield it


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version of the program that knows one more migration; its migrations. Request it once there is an older one."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrations.folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_next.py").write_text(
        f"""
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", {REVISION!r}, None, None
def upgrade():
    op.add_column("jobs", sa.Column("note", sa.Text))
    op.execute("UPDATE trajectories SET created_at = 7")
"""
    )
    monkeypatch.setattr(migrations, "folder", lambda: folder)
    monkeypatch.setattr(migrations, "REVISION", "9999")
    return folder
