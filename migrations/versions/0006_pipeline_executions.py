"""Executions of pipelines."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "pipeline_executions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("arn", sa.Text, nullable=False, unique=True),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("failure_reason", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.UniqueConstraint("pipeline", "token", name="one_execution_a_token"),
        sqlite_autoincrement=True,
    )
    op.create_index("pipeline_executions_by_time", "pipeline_executions", ["pipeline", "created_at", "id"])
