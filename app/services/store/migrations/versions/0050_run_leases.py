"""Which process drives a run, and what the others have to tell it."""

import sqlalchemy as sa
from alembic import op

revision = "0050"
down_revision = "0040"


def upgrade() -> None:
    op.add_column("runs", sa.Column("process_id", sa.Text(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("cancel_asked", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("runs", sa.Column("reads", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("reads", "cancel_asked", "process_id"):
        op.drop_column("runs", name)
