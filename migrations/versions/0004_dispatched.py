"""What a rollout was dispatched with."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("trajectories", sa.Column("group_id", sa.Text))
    op.add_column("trajectories", sa.Column("instance", sa.Text))
