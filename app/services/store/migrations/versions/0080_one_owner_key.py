"""At most one owner key that opens doors, whatever keys the processes of an installation start with."""

import sqlalchemy as sa
from alembic import op

revision = "0080"
down_revision = "0070"


def upgrade() -> None:
    # Two processes that started at the same time may have left two.
    op.execute(
        "UPDATE keys SET revoked_at = created_at WHERE imported AND revoked_at IS NULL AND key_id <> "
        "(SELECT key_id FROM keys WHERE imported AND revoked_at IS NULL ORDER BY created_at DESC, key_id LIMIT 1)"
    )
    live = sa.text("imported AND revoked_at IS NULL")
    op.create_index("ix_keys_live_owner", "keys", ["imported"], unique=True, sqlite_where=live, postgresql_where=live)


def downgrade() -> None:
    op.drop_index("ix_keys_live_owner", "keys")
