"""What decisions are bound to, second persons, escalations that somebody takes, and notices of all of them."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0100"
down_revision = "0090"


def _of_approvals() -> list[sa.Column[Any]]:
    return [
        sa.Column("call_id", sa.Text(), nullable=False, server_default=""),
        sa.Column("definition", sa.Text(), nullable=False, server_default=""),
        sa.Column("binding", sa.Text(), nullable=False, server_default=""),
        sa.Column("needs", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("reasons", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("origins", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("first_by", sa.Text()),
        sa.Column("first_at", sa.DateTime(timezone=True)),
        sa.Column("first_arguments", sa.JSON()),
        sa.Column("warned_at", sa.DateTime(timezone=True)),
    ]


def _of_escalations() -> list[sa.Column[Any]]:
    return [
        sa.Column("state", sa.Text(), nullable=False, server_default="open"),
        sa.Column("taken_by", sa.Text()),
        sa.Column("taken_at", sa.DateTime(timezone=True)),
        sa.Column("closed_by", sa.Text()),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("comment", sa.Text(), nullable=False, server_default=""),
    ]


def upgrade() -> None:
    for column in _of_approvals():
        op.add_column("approvals", column)
    for column in _of_escalations():
        op.add_column("escalations", column)
    op.create_index("ix_approvals_state_expires_at", "approvals", ["state", "expires_at"])
    op.create_index("ix_escalations_tenant_id_state_created_at", "escalations", ["tenant_id", "state", "created_at"])
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("risk", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("notice_id", name="pk_notices"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_notices_run_id", ondelete="CASCADE"),
    )
    op.create_index("ix_notices_created_at", "notices", ["created_at"])


def downgrade() -> None:
    op.drop_table("notices")
    op.drop_index("ix_escalations_tenant_id_state_created_at", "escalations")
    op.drop_index("ix_approvals_state_expires_at", "approvals")
    for column in _of_escalations():
        op.drop_column("escalations", column.name)
    for column in _of_approvals():
        op.drop_column("approvals", column.name)
