"""Which GPUs a replica has for itself."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("replicas", sa.Column("gpus", sa.JSON))
