"""Proofs of the keys that contents are sealed with."""

import sqlalchemy as sa
from alembic import op

revision = "0110"
down_revision = "0100"


def upgrade() -> None:
    op.create_table(
        "vault_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("proof", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_vault_keys"),
    )


def downgrade() -> None:
    op.drop_table("vault_keys")
