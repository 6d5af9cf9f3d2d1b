"""Jobs, trajectories, turns and client tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "jobs",
        sa.Column("job_arn", sa.Text, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "trajectories",
        sa.Column("id", _ROW, primary_key=True),
        sa.Column("job_arn", sa.Text, nullable=False),
        sa.Column("trajectory_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("completion", sa.Text),
        sa.Column("rewards", sa.JSON(none_as_null=True)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("rewarded_at", sa.BigInteger),
        sa.UniqueConstraint("job_arn", "trajectory_id", name="one_trajectory_a_key"),
        sa.CheckConstraint(
            "(status = 'open' AND completion IS NULL AND completed_at IS NULL AND rewards IS NULL)"
            " OR (status IN ('ready', 'failed') AND completion IS NOT NULL AND completion = status"
            " AND completed_at IS NOT NULL AND rewards IS NULL)"
            " OR (status = 'reward-received' AND completion IS NOT NULL AND completion IN ('ready', 'failed')"
            " AND completed_at IS NOT NULL AND rewards IS NOT NULL AND rewarded_at IS NOT NULL)",
            name="status_fits",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("trajectories_by_job", "trajectories", ["job_arn", "id"])
    op.create_index("trajectories_by_status", "trajectories", ["status", "id"])
    op.create_table(
        "turns",
        sa.Column("id", _ROW, primary_key=True),
        sa.Column("trajectory", _ROW, sa.ForeignKey("trajectories.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("http_status", sa.Integer),
        sa.Column("content_type", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("arrived_at", sa.BigInteger, nullable=False),
        sa.Column("first_byte_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("trajectory", "number", name="one_turn_a_number"),
        sa.CheckConstraint("status IN ('completed', 'failed', 'aborted', 'discarded')", name="turn_status"),
    )
    op.create_table(
        "client_tokens",
        sa.Column("operation", sa.Text, primary_key=True),
        sa.Column("job_arn", sa.Text, primary_key=True),
        sa.Column("token", sa.Text, primary_key=True),
        sa.Column("parameters", sa.Text, nullable=False),
        sa.Column("trajectory", _ROW, sa.ForeignKey("trajectories.id", ondelete="CASCADE"), nullable=False),
    )
    op.create_index("ix_client_tokens_trajectory", "client_tokens", ["trajectory"])
