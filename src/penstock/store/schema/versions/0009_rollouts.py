"""A release keeps how its rollout stands, and the watch after it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("releases", sa.Column("rollout", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("releases", sa.Column("watch", sa.JSON(none_as_null=True), nullable=True))
