"""The tables as SQLAlchemy Core sees them. The migrations create them; a test holds the two together.

Every table that tenants share carries `tenant_id`, and every statement of the store names it in its WHERE. What holds
contents is sealed (`app.services.seals`) and cannot be searched or sorted by.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

from app.records import AnswerCard
from app.services.seals import Form, bound_to
from app.services.store.text import clean, json_text


class Utc(TypeDecorator[datetime]):
    """An aware UTC time on both databases; SQLite keeps no zone, so it is taken off there and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time must be aware")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Clean(TypeDecorator[str]):
    """Text, cleaned on the way in and in every comparison."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean(value)


class Strings(TypeDecorator[tuple[str, ...]]):
    """A tuple of texts, kept as a JSON list."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> list[str]:
        return list(value or ())

    def process_result_value(self, value: list[str] | None, dialect: Dialect) -> tuple[str, ...]:
        return tuple(value or ())


class Card(TypeDecorator[AnswerCard]):
    """An answer card, kept as the JSON that leaves the API."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: AnswerCard | str | None, dialect: Dialect) -> Any:
        # Not mode="json": pydantic's writer refuses lone surrogates before they could be cleaned.
        return _card_dict(value) if isinstance(value, AnswerCard) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> AnswerCard | None:
        """A sealed one stays as it is until it is opened with its row."""
        return AnswerCard.model_validate(value) if isinstance(value, dict) else value


def _card_dict(card: AnswerCard) -> dict[str, Any]:
    return card.model_dump(by_alias=True) | {"createdAt": card.created_at.isoformat()}


# A JSON value; None is SQL NULL. It is cleaned where the engine writes it as text (`text.json_text`).
JSON_VALUE = JSON(none_as_null=True)

SEALED_TEXT = Form(lambda value: clean(value).encode(), bytes.decode).info
SEALED_JSON = Form(lambda value: json_text(value).encode(), json.loads).info
SEALED_CARD = Form(
    lambda card: json_text(_card_dict(card)).encode(), lambda raw: AnswerCard.model_validate(json.loads(raw))
).info

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", Clean, primary_key=True),
    Column("tenant_id", Clean, nullable=False),
    Column("user_id", Clean, nullable=False),
    Column("name", Clean, nullable=False),
    Column("scopes", Strings, nullable=False),
    Column("groups", Strings, nullable=False, server_default="[]"),
    Column("secret_sha256", Clean, nullable=False),
    Column("imported", Boolean, nullable=False, default=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc),
    Column("revoked_at", Utc),
    Index(None, "tenant_id", "created_at"),
    Index(
        "ix_keys_live_owner",
        "imported",
        unique=True,
        sqlite_where=text("imported AND revoked_at IS NULL"),
        postgresql_where=text("imported AND revoked_at IS NULL"),
    ),
)

conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", Clean, primary_key=True),
    Column("tenant_id", Clean, nullable=False),
    Column("user_id", Clean, nullable=False),
    Column("title", Clean, nullable=False, info=SEALED_TEXT),
    Column("created_at", Utc, nullable=False),
    Index(None, "tenant_id", "user_id", "created_at"),
    info=bound_to("conversation_id"),
)

messages = Table(
    "messages",
    metadata,
    # Two messages of one transaction share a time; the sequence keeps their order.
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("message_id", Clean, nullable=False, unique=True),
    Column("conversation_id", Clean, ForeignKey("conversations.conversation_id", ondelete="CASCADE"), nullable=False),
    Column("tenant_id", Clean, nullable=False),
    Column("run_id", Clean),
    Column("role", Clean, nullable=False),
    Column("content", Clean, nullable=False, info=SEALED_TEXT),
    Column("created_at", Utc, nullable=False),
    Column("trust", Clean),  # without one nobody knows what it was made of
    Index(None, "conversation_id", "sequence"),
    info=bound_to("conversation_id", "message_id", "role"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Clean, primary_key=True),
    Column("conversation_id", Clean, ForeignKey("conversations.conversation_id", ondelete="CASCADE")),
    Column("tenant_id", Clean, nullable=False),
    Column("user_id", Clean, nullable=False),
    Column("key_id", Clean, nullable=False),
    Column("mode", Clean, nullable=False),
    Column("feature", Clean, nullable=False),
    Column("status", Clean, nullable=False),
    Column("message", Clean, nullable=False, info=SEALED_TEXT),
    Column("asked", JSON_VALUE, nullable=False, default=dict, info=SEALED_JSON),
    Column("answer", Clean, nullable=False, default="", info=SEALED_TEXT),
    Column("prompt_version", Clean, nullable=False, default=""),
    Column("model", Clean, nullable=False, default=""),
    Column("model_version", Clean, nullable=False, default=""),
    Column("provider", Clean, nullable=False, default=""),
    Column("graph_fingerprint", Clean, nullable=False, default=""),
    Column("index_version", Clean, nullable=False, default=""),
    Column("embedder", Clean, nullable=False, default=""),
    Column("retrieved_chunk_ids", Strings, nullable=False, default=()),
    Column("tool_calls", JSON_VALUE, nullable=False, default=list, info=SEALED_JSON),
    Column("stations", JSON_VALUE, nullable=False, default=dict),
    Column("latency_ms", Float, nullable=False, default=0.0),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("usage_estimated", Boolean, nullable=False, default=False),
    Column("cost_usd_micros", BigInteger, nullable=False, default=0),
    Column("validation", Clean, nullable=False, default=""),
    Column("error_kind", Clean),
    Column("error_code", Clean),
    Column("error_message", Clean, info=SEALED_TEXT),
    Column("card", Card, info=SEALED_CARD),
    Column("created_at", Utc, nullable=False),
    Column("ended_at", Utc),
    Column("exported_at", Utc),
    Column("trace_id", Clean),
    # Whose lease it is (`leases`), and what other processes have to tell the holder.
    Column("process_id", Clean, nullable=False, server_default=""),
    Column("cancel_asked", Boolean, nullable=False, server_default=false()),
    Column("reads", Integer, nullable=False, server_default="0"),
    # Of who asked, for a run without a key that goes on later; a key's own are asked for anew.
    Column("groups", Strings, nullable=False, server_default="[]"),
    Index(None, "tenant_id", "created_at", "run_id"),
    Index(None, "conversation_id"),
    # The outbox and the runs in flight are small parts of a table that only grows.
    Index(
        "ix_runs_outbox",
        "ended_at",
        sqlite_where=text("exported_at IS NULL AND ended_at IS NOT NULL"),
        postgresql_where=text("exported_at IS NULL AND ended_at IS NOT NULL"),
    ),
    Index("ix_runs_open", "status", sqlite_where=text("ended_at IS NULL"), postgresql_where=text("ended_at IS NULL")),
    info=bound_to("run_id"),
)


def _run_id(**options: Any) -> Column[str]:
    return Column("run_id", Clean, ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, **options)


events = Table(
    "events",
    metadata,
    _run_id(primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("type", Clean, nullable=False),
    Column("data", JSON_VALUE, nullable=False, info=SEALED_JSON),
    info=bound_to("run_id", "number", "type"),
)

spans = Table(
    "spans",
    metadata,
    _run_id(primary_key=True),
    Column("span_id", Clean, primary_key=True),
    Column("parent_id", Clean),
    Column("name", Clean, nullable=False),
    Column("kind", Clean, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("ended_at", Utc, nullable=False),
    Column("status", Clean, nullable=False),
    Column("attributes", JSON_VALUE, nullable=False, info=SEALED_JSON),
    info=bound_to("run_id", "span_id"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", Clean, primary_key=True),
    _run_id(),
    Column("interrupt_id", Clean, nullable=False),
    Column("tenant_id", Clean, nullable=False),
    Column("user_id", Clean, nullable=False),
    Column("tool", Clean, nullable=False),
    Column("arguments", JSON_VALUE, nullable=False, info=SEALED_JSON),
    Column("risk", Clean, nullable=False),
    Column("state", Clean, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("decided_by", Clean),
    Column("decided_at", Utc),
    Column("decided_arguments", JSON_VALUE, info=SEALED_JSON),
    Column("comment", Clean, nullable=False, default="", info=SEALED_TEXT),
    Column("call_id", Clean, nullable=False, server_default=""),
    Column("definition", Clean, nullable=False, server_default=""),
    Column("binding", Clean, nullable=False, server_default=""),
    Column("needs", Integer, nullable=False, server_default="1"),
    Column("reasons", Strings, nullable=False, server_default="[]"),
    Column("origins", JSON_VALUE, nullable=False, server_default="[]", info=SEALED_JSON),
    Column("first_by", Clean),
    Column("first_at", Utc),
    Column("first_arguments", JSON_VALUE, info=SEALED_JSON),
    Column("warned_at", Utc),
    UniqueConstraint("run_id", "interrupt_id"),
    Index(None, "tenant_id", "state", "created_at"),
    Index(None, "state", "expires_at"),
    info=bound_to("run_id", "approval_id", "tool"),
)

tickets = Table(
    "tickets",
    metadata,
    Column("ticket_id", Clean, primary_key=True),
    Column("tenant_id", Clean, nullable=False),
    Column("user_id", Clean, nullable=False),
    # No foreign key: a ticket is an effect in the world and outlives the conversation that asked for it.
    Column("run_id", Clean, nullable=False),
    Column("idempotency_key", Clean, nullable=False),
    Column("title", Clean, nullable=False, info=SEALED_TEXT),
    Column("body", Clean, nullable=False, info=SEALED_TEXT),
    Column("created_at", Utc, nullable=False),
    UniqueConstraint("tenant_id", "idempotency_key"),
    Index(None, "tenant_id", "created_at"),
    info=bound_to("ticket_id"),
)

feedback = Table(
    "feedback",
    metadata,
    _run_id(primary_key=True),
    Column("user_id", Clean, primary_key=True),
    Column("tenant_id", Clean, nullable=False),
    Column("rating", Clean, nullable=False),
    Column("comment", Clean, nullable=False, info=SEALED_TEXT),
    Column("created_at", Utc, nullable=False),
    info=bound_to("run_id", "user_id"),
)

repeats = Table(
    "repeats",
    metadata,
    Column("tenant_id", Clean, primary_key=True),
    Column("user_id", Clean, primary_key=True),
    Column("key_sha256", Clean, primary_key=True),  # of the caller's own words, which may say anything
    Column("asked_sha256", Clean, nullable=False),  # of the request and that key together
    Column("ref", Clean, nullable=False),
    Column("holder", Clean, nullable=False),
    Column("held_until", Utc, nullable=False),
    Column("answer", JSON_VALUE, info=SEALED_JSON),
    Column("created_at", Utc, nullable=False),
    Column("done_at", Utc),
    Index(None, "created_at"),
    info=bound_to("user_id", "key_sha256"),
)

documents = Table(
    "documents",
    metadata,
    # SHA-256 over tenant, collection and id: together they may be longer than PostgreSQL indexes (2,704 bytes).
    Column("document_key", Clean, primary_key=True),
    Column("tenant_id", Clean, nullable=False),
    Column("collection", Clean, nullable=False),
    Column("document_id", Clean, nullable=False),
    Column("title", Clean, nullable=False),
    Column("media_type", Clean, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Clean, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("metadata", JSON_VALUE, nullable=False),
    Column("allow_groups", Strings, nullable=False, server_default="[]"),
    Column("trust", Clean, nullable=False, server_default="untrusted"),
    Column("uploaded_by", Clean),
    Column("created_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    # Last, so that SQLite reads the columns before it without walking the text's overflow pages.
    Column("text", Clean, nullable=False),
    Column("structure", Text, nullable=False, server_default=""),
    Index(None, "tenant_id", "created_at"),
    Index(None, "document_id"),
)

escalations = Table(
    "escalations",
    metadata,
    Column("escalation_id", Clean, primary_key=True),
    _run_id(),
    Column("tenant_id", Clean, nullable=False),
    Column("reason", Clean, nullable=False),
    Column("detail", Clean, nullable=False, info=SEALED_TEXT),
    Column("created_at", Utc, nullable=False),
    Column("state", Clean, nullable=False, server_default="open"),
    Column("taken_by", Clean),
    Column("taken_at", Utc),
    Column("closed_by", Clean),
    Column("closed_at", Utc),
    Column("comment", Clean, nullable=False, server_default="", info=SEALED_TEXT),
    Index(None, "tenant_id", "created_at"),
    Index(None, "tenant_id", "state", "created_at"),
    Index(None, "run_id"),
    info=bound_to("run_id", "escalation_id"),
)

notices = Table(
    "notices",
    metadata,
    Column("notice_id", Clean, primary_key=True),
    _run_id(),
    Column("tenant_id", Clean, nullable=False),
    Column("kind", Clean, nullable=False),
    Column("subject", Clean, nullable=False),
    Column("tool", Clean, nullable=False),
    Column("risk", Clean, nullable=False),
    Column("created_at", Utc, nullable=False),
    Index(None, "created_at"),
)
