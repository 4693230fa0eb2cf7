"""The alerts' table as SQLAlchemy Core sees it; the store's migrations create it, a test compares the two."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text, UniqueConstraint, text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

_WAITS = text("delivery = 'waiting'")

alerts = Table(
    "alerts",
    metadata,
    Column("alert_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # budget | breaker | credential | loop
    Column("subject", Text, nullable=False),  # tenant:acme, or the name of a model
    Column("detail", Text, nullable=False),
    Column("period", Text, nullable=False),  # 2026-11 for a budget, else the hour, 2026-11-24T17
    Column("share", Float, nullable=False),  # of the budget; 0 for other kinds
    Column("created_us", BigInteger, nullable=False),
    Column("acknowledged_us", BigInteger),
    Column("acknowledged_by", Text, nullable=False),
    Column("delivery", Text, nullable=False),  # none | waiting | sent | failed
    Column("tries", Integer, nullable=False),
    Column("due_us", BigInteger, nullable=False),  # when the next try may be made, and by whom else if this one dies
    # Whichever process says it first has said it for all.
    UniqueConstraint("kind", "subject", "period", "share"),
    Index(None, "created_us"),
    Index("ix_alerts_waiting", "due_us", sqlite_where=_WAITS, postgresql_where=_WAITS),
)
