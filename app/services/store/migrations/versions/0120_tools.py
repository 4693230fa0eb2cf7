"""The definitions of tools that operators have accepted, and the calls of tools that have an effect."""

import sqlalchemy as sa
from alembic import op

revision = "0120"
down_revision = "0110"


def upgrade() -> None:
    op.create_table(
        "tool_acceptances",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.Column("accepted_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tool_acceptances"),
    )
    op.create_table(
        "tool_calls",
        sa.Column("call_key", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("begun_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger()),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("result_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("call_key", name="pk_tool_calls"),
    )
    op.create_index("ix_tool_calls_begun_us", "tool_calls", ["begun_us"])
    op.create_index("ix_tool_calls_tenant_id_run_id", "tool_calls", ["tenant_id", "run_id"])


def downgrade() -> None:
    for table in ("tool_calls", "tool_acceptances"):
        op.drop_table(table)
