"""What sealed items of jobs are bound to and searched by, and what callers' idempotency keys stand for."""

import sqlalchemy as sa
from alembic import op

revision = "0160"
down_revision = "0130"


def upgrade() -> None:
    op.add_column("job_items", sa.Column("tenant_id", sa.Text(), nullable=False, server_default=""))
    op.add_column("job_items", sa.Column("allow_groups", sa.JSON(none_as_null=True)))
    jobs = sa.table("jobs", sa.column("job_id"), sa.column("tenant_id"))
    items = sa.table(
        "job_items",
        sa.column("job_id"),
        sa.column("tenant_id"),
        sa.column("input", sa.JSON()),
        sa.column("allow_groups", sa.JSON(none_as_null=True)),
    )
    tenant = sa.select(jobs.c.tenant_id).where(jobs.c.job_id == items.c.job_id).scalar_subquery()
    op.execute(items.update().values(tenant_id=sa.func.coalesce(tenant, ""), allow_groups=items.c.input["allowGroups"]))

    op.create_table(
        "repeats",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant_id", "user_id", "key_sha256")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("asked_sha256", "ref", "holder")),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.JSON()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "key_sha256", name="pk_repeats"),
    )
    op.create_index("ix_repeats_created_at", "repeats", ["created_at"])


def downgrade() -> None:
    op.drop_table("repeats")
    op.drop_column("job_items", "allow_groups")
    op.drop_column("job_items", "tenant_id")
