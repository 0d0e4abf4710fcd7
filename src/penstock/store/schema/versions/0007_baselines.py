"""Where passed runs come from is kept, and every change of a number that a file fixes as a baseline."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_index("runs_by_version", "runs", ["project", "version", "id"], unique=False)
    op.create_table(
        "origins",
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("hardware", sa.JSON(), nullable=False),
        sa.Column("seeds", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("run"),
    )
    op.create_table(
        "fixed_baselines",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("gate", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("before", sa.Float(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("run", sa.Integer(), nullable=True),
        sa.Column("sha", sa.String(), nullable=True),
        sa.Column("request", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.id"]),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.ForeignKeyConstraint(["request"], ["requests.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project", "gate", "request"),
        sqlite_autoincrement=True,
    )
