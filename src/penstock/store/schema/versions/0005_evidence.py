"""What each package answered on each test set is remembered, and gates keep the interval that decided them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("gates", sa.Column("chart", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "evidence",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("test_set", sa.String(), nullable=False),
        sa.Column("package", sa.String(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("collected", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.id"]),
        sa.ForeignKeyConstraint(["run"], ["runs.id"]),
        sa.PrimaryKeyConstraint("project", "step", "test_set", "package"),
    )
    op.create_index("evidence_by_package", "evidence", ["project", "package"], unique=False)
