"""Groups of keys, runs and jobs, the groups that a document is for, and where it came from."""

import sqlalchemy as sa
from alembic import op

revision = "0060"
down_revision = "0050"

_HOLDERS = ("keys", "runs", "jobs")


def upgrade() -> None:
    for table in _HOLDERS:
        op.add_column(table, sa.Column("groups", sa.JSON(), nullable=False, server_default="[]"))
    allowed = sa.Column("allow_groups", sa.JSON(), nullable=False, server_default="[]")
    trust = sa.Column("trust", sa.Text(), nullable=False, server_default="untrusted")
    if op.get_bind().dialect.name == "postgresql":
        op.add_column("documents", allowed)
        op.add_column("documents", trust)
        return
    # Made anew, with the text last: SQLite reads a column behind it through all of its pages.
    with op.batch_alter_table("documents", recreate="always") as documents:
        documents.add_column(allowed, insert_after="metadata")
        documents.add_column(trust, insert_after="allow_groups")


def downgrade() -> None:
    for name in ("trust", "allow_groups"):
        op.drop_column("documents", name)
    for table in _HOLDERS:
        op.drop_column(table, "groups")
