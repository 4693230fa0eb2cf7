"""Who wrote a document last; of those that are there nobody knows."""

import sqlalchemy as sa
from alembic import op

revision = "0170"
down_revision = "0160"


def upgrade() -> None:
    uploaded_by = sa.Column("uploaded_by", sa.Text())
    if op.get_bind().dialect.name == "postgresql":
        op.add_column("documents", uploaded_by)
        return
    # Made anew, with the text last: SQLite reads a column behind it through all of its pages.
    with op.batch_alter_table("documents", recreate="always") as documents:
        documents.add_column(uploaded_by, insert_after="trust")


def downgrade() -> None:
    op.drop_column("documents", "uploaded_by")
