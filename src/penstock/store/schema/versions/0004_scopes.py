"""Results belong to a scope ('' is trusted), and what was evicted is remembered with its reason."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_COLUMNS = "key, project, step, run, ingredients, result, seconds, created, used"


def upgrade() -> None:
    op.drop_index("actions_by_step", "actions")
    op.rename_table("actions", "actions_before")
    op.create_table(
        "actions",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("ingredients", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("used", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", "scope"),
    )
    op.execute(f"INSERT INTO actions ({_COLUMNS}, scope) SELECT {_COLUMNS}, '' FROM actions_before")  # noqa: S608
    op.drop_table("actions_before")
    op.create_index("actions_by_step", "actions", ["project", "step", "created"])
    op.create_table(
        "evictions",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key", "scope"),
    )
    op.create_index("evictions_by_time", "evictions", ["at"])
