"""Which job is at which collection, and the structure of documents, for cutting them anew."""

import sqlalchemy as sa
from alembic import op

revision = "0070"
down_revision = "0060"


def upgrade() -> None:
    op.create_table(
        "job_leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_job_leases"),
    )
    op.add_column("documents", sa.Column("structure", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("documents", "structure")
    op.drop_table("job_leases")
