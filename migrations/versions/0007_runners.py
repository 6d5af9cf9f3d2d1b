"""Which server does a job, where several share the database."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, and the table that they refer to."""
    op.add_column("jobs", sa.Column("runner", sa.Text))
    op.add_column("pipeline_executions", sa.Column("runner", sa.Text))
    op.create_table(
        "runners",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
    )
