"""The ledger: one row an attempt at a model call, the budgets of a month, and what living processes hold of them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0001"


def upgrade() -> None:
    texts = (
        *("request_id", "run_id", "tenant_id", "user_id", "key_id", "feature", "task"),
        *("route", "model", "model_version", "provider", "price_source"),
        *("state", "outcome", "error_code", "period", "day", "process_id"),
    )
    counts = (
        *("reserved_micros", "cost_micros", "started_us"),
        *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
    )
    op.create_table(
        "ledger",
        sa.Column("call_id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("first_token_ms", sa.Float()),
        sa.PrimaryKeyConstraint("call_id", name="pk_ledger"),
    )
    op.create_index("ix_ledger_tenant_id_period_user_id", "ledger", ["tenant_id", "period", "user_id"])
    op.create_index("ix_ledger_run_id", "ledger", ["run_id"])
    op.create_index("ix_ledger_started_us", "ledger", ["started_us"])
    is_open = sa.text("state = 'open'")
    op.create_index("ix_ledger_open", "ledger", ["process_id"], sqlite_where=is_open, postgresql_where=is_open)
    op.create_table(
        "budgets",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("spent_micros", sa.BigInteger(), nullable=False),
        sa.Column("held_micros", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "period", name="pk_budgets"),
    )
    op.create_table(
        "budget_holds",
        sa.Column("process_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("held_micros", sa.BigInteger(), nullable=False),
        sa.Column("unbooked_micros", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("process_id", "scope", "period", name="pk_budget_holds"),
    )
    op.create_table(
        "ledger_processes",
        sa.Column("process_id", sa.Text(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("process_id", name="pk_ledger_processes"),
    )


def downgrade() -> None:
    for table in ("ledger_processes", "budget_holds", "budgets", "ledger"):
        op.drop_table(table)
