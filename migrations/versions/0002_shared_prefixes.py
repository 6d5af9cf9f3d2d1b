"""Requests without what they share with an earlier one; turn numbers that the database gives out."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATUS = "status = 'completed' OR status = 'failed' OR status = 'aborted' OR status = 'discarded'"

SHARED = "(base IS NULL AND shared = 0) OR (base IS NOT NULL AND shared > 0)"


def upgrade() -> None:
    """Add the columns."""
    # Nothing may make SQLite's `trajectories` anew: to drop the old one would take the turns with it.
    op.add_column("trajectories", sa.Column("next_number", sa.Integer, nullable=False, server_default="0"))
    if op.get_context().dialect.name == "sqlite":
        # Made anew, so that the bodies stay the last columns.
        with op.batch_alter_table("turns", recreate="always") as table:
            table.add_column(sa.Column("base", sa.Integer), insert_after="ended_at")
            table.add_column(sa.Column("shared", sa.Integer, nullable=False, server_default="0"), insert_after="base")
            table.create_check_constraint("shared_with_its_base", SHARED)
            table.drop_constraint("turn_status", type_="check")
            table.create_check_constraint("turn_status", STATUS)
    else:
        op.add_column("turns", sa.Column("base", sa.Integer))
        op.add_column("turns", sa.Column("shared", sa.Integer, nullable=False, server_default="0"))
        op.create_check_constraint("shared_with_its_base", "turns", SHARED)
        op.drop_constraint("turn_status", "turns", type_="check")
        op.create_check_constraint("turn_status", "turns", STATUS)
