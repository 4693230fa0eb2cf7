"""How far each message of a conversation is to be trusted; of those that are there nobody knows."""

import sqlalchemy as sa
from alembic import op

revision = "0130"
down_revision = "0120"


def upgrade() -> None:
    op.add_column("messages", sa.Column("trust", sa.Text()))


def downgrade() -> None:
    op.drop_column("messages", "trust")
