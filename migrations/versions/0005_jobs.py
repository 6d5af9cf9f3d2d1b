"""Jobs of the control plane; what was there under that name only said which were known."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give the table of those that are known its name, and add the other."""
    # Not renamed: on PostgreSQL its constraints would keep the names that the other table's have.
    op.create_table(
        "known_jobs",
        sa.Column("job_arn", sa.Text, primary_key=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO known_jobs (job_arn, created_at) SELECT job_arn, created_at FROM jobs")
    op.drop_table("jobs")
    row = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "jobs",
        sa.Column("id", row, primary_key=True),
        sa.Column("job_arn", sa.Text, nullable=False, unique=True),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role_arn", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("transitions", sa.Text, nullable=False),
        sa.Column("output", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("failure_reason", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("document", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "job_rollouts",
        sa.Column("job", row, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("row", sa.Integer, primary_key=True),
        sa.Column("member", sa.Integer, primary_key=True),
        sa.Column("trajectory_id", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
    )
    op.create_index("jobs_by_name", "jobs", ["category", "name"])
    op.create_index("jobs_by_time", "jobs", ["category", "created_at", "id"])
    op.create_index("jobs_by_status", "jobs", ["category", "status", "id"])
