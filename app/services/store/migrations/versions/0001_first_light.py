"""The tables of the first version: who, what was said, what ran, what waits, what was read."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str, *constraints: Any, required: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.Text(), *constraints, nullable=not required)


def _time(name: str, required: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=not required)


def _json(name: str, required: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(), nullable=not required)


def _child_of(table: str, column: str, child: str, required: bool = True) -> sa.Column[Any]:
    parent = sa.ForeignKey(f"{table}.{column}", name=f"fk_{child}_{column}", ondelete="CASCADE")
    return _text(column, parent, required=required)


def upgrade() -> None:
    _create_people()
    _create_runs()
    _create_parts_of_runs()
    _create_knowledge()


def _create_people() -> None:
    op.create_table(
        "keys",
        _text("key_id"),
        _text("tenant_id"),
        _text("user_id"),
        _text("name"),
        _json("scopes"),
        _text("secret_sha256"),
        sa.Column("imported", sa.Boolean(), nullable=False),
        _time("created_at"),
        _time("expires_at", required=False),
        _time("revoked_at", required=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_keys"),
    )
    op.create_index("ix_keys_tenant_id_created_at", "keys", ["tenant_id", "created_at"])
    op.create_table(
        "conversations",
        _text("conversation_id"),
        _text("tenant_id"),
        _text("user_id"),
        _text("title"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_conversations"),
    )
    op.create_index(
        "ix_conversations_tenant_id_user_id_created_at", "conversations", ["tenant_id", "user_id", "created_at"]
    )
    op.create_table(
        "messages",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True),
        _text("message_id"),
        _child_of("conversations", "conversation_id", "messages"),
        _text("tenant_id"),
        _text("run_id", required=False),
        _text("role"),
        _text("content"),
        _time("created_at"),
        sa.PrimaryKeyConstraint("sequence", name="pk_messages"),
        sa.UniqueConstraint("message_id", name="uq_messages_message_id"),
    )
    op.create_index("ix_messages_conversation_id_sequence", "messages", ["conversation_id", "sequence"])


def _create_runs() -> None:
    op.create_table(
        "runs",
        _text("run_id"),
        _child_of("conversations", "conversation_id", "runs", required=False),
        *(_text(name) for name in ("tenant_id", "user_id", "key_id", "mode", "feature", "status", "message", "answer")),
        *(_text(name) for name in ("prompt_version", "model", "model_version", "provider")),
        *(_text(name) for name in ("graph_fingerprint", "index_version", "embedder")),
        *(_json(name) for name in ("asked", "retrieved_chunk_ids", "tool_calls", "stations")),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("usage_estimated", sa.Boolean(), nullable=False),
        sa.Column("cost_usd_micros", sa.BigInteger(), nullable=False),
        _text("validation"),
        *(_text(name, required=False) for name in ("error_kind", "error_code", "error_message")),
        _json("card", required=False),
        _time("created_at"),
        _time("ended_at", required=False),
        _time("exported_at", required=False),
        _text("trace_id", required=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_runs"),
    )
    op.create_index("ix_runs_tenant_id_created_at_run_id", "runs", ["tenant_id", "created_at", "run_id"])
    op.create_index("ix_runs_conversation_id", "runs", ["conversation_id"])
    outbox, open_ = sa.text("exported_at IS NULL AND ended_at IS NOT NULL"), sa.text("ended_at IS NULL")
    op.create_index("ix_runs_outbox", "runs", ["ended_at"], sqlite_where=outbox, postgresql_where=outbox)
    op.create_index("ix_runs_open", "runs", ["status"], sqlite_where=open_, postgresql_where=open_)


def _create_parts_of_runs() -> None:
    op.create_table(
        "events",
        _child_of("runs", "run_id", "events"),
        sa.Column("number", sa.Integer(), nullable=False),
        _text("type"),
        _json("data"),
        sa.PrimaryKeyConstraint("run_id", "number", name="pk_events"),
    )
    op.create_table(
        "spans",
        _child_of("runs", "run_id", "spans"),
        _text("span_id"),
        _text("parent_id", required=False),
        _text("name"),
        _text("kind"),
        _time("started_at"),
        _time("ended_at"),
        _text("status"),
        _json("attributes"),
        sa.PrimaryKeyConstraint("run_id", "span_id", name="pk_spans"),
    )
    op.create_table(
        "approvals",
        _text("approval_id"),
        _child_of("runs", "run_id", "approvals"),
        *(_text(name) for name in ("interrupt_id", "tenant_id", "user_id", "tool")),
        _json("arguments"),
        _text("risk"),
        _text("state"),
        _time("created_at"),
        _time("expires_at"),
        _text("decided_by", required=False),
        _time("decided_at", required=False),
        _json("decided_arguments", required=False),
        _text("comment"),
        sa.PrimaryKeyConstraint("approval_id", name="pk_approvals"),
        sa.UniqueConstraint("run_id", "interrupt_id", name="uq_approvals_run_id_interrupt_id"),
    )
    op.create_index("ix_approvals_tenant_id_state_created_at", "approvals", ["tenant_id", "state", "created_at"])
    op.create_table(
        "feedback",
        _child_of("runs", "run_id", "feedback"),
        *(_text(name) for name in ("user_id", "tenant_id", "rating", "comment")),
        _time("created_at"),
        sa.PrimaryKeyConstraint("run_id", "user_id", name="pk_feedback"),
    )
    op.create_table(
        "escalations",
        _text("escalation_id"),
        _child_of("runs", "run_id", "escalations"),
        *(_text(name) for name in ("tenant_id", "reason", "detail")),
        _time("created_at"),
        sa.PrimaryKeyConstraint("escalation_id", name="pk_escalations"),
    )
    op.create_index("ix_escalations_tenant_id_created_at", "escalations", ["tenant_id", "created_at"])
    op.create_index("ix_escalations_run_id", "escalations", ["run_id"])


def _create_knowledge() -> None:
    op.create_table(
        "tickets",
        *(_text(name) for name in ("ticket_id", "tenant_id", "user_id", "run_id", "idempotency_key", "title", "body")),
        _time("created_at"),
        sa.PrimaryKeyConstraint("ticket_id", name="pk_tickets"),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name="uq_tickets_tenant_id_idempotency_key"),
    )
    op.create_index("ix_tickets_tenant_id_created_at", "tickets", ["tenant_id", "created_at"])
    op.create_table(
        "documents",
        *(_text(name) for name in ("document_key", "tenant_id", "collection", "document_id", "title", "media_type")),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        _text("sha256"),
        sa.Column("chunks", sa.Integer(), nullable=False),
        _json("metadata"),
        _time("created_at"),
        _time("updated_at"),
        _text("text"),
        sa.PrimaryKeyConstraint("document_key", name="pk_documents"),
    )
    op.create_index("ix_documents_tenant_id_created_at", "documents", ["tenant_id", "created_at"])
    op.create_index("ix_documents_document_id", "documents", ["document_id"])
