"""The ledger's tables as SQLAlchemy Core sees them; the store's migrations create them, a test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"},
)

# Times are whole microseconds since 1970, UTC: an integer costs nothing to bind on the hot path.
ledger = Table(
    "ledger",
    metadata,
    Column("call_id", Text, primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("feature", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("route", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("state", Text, nullable=False),  # open | settled | abandoned
    Column("outcome", Text, nullable=False),  # ok | failed | cancelled | cached, empty while open
    Column("error_code", Text, nullable=False),
    Column("period", Text, nullable=False),  # the month whose budget it draws on, 2026-11
    Column("day", Text, nullable=False),  # 2026-11-24
    Column("reserved_micros", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("price_source", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("process_id", Text, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("latency_ms", Float, nullable=False),
    Column("first_token_ms", Float),
    Index(None, "tenant_id", "period", "user_id"),
    Index(None, "run_id"),
    Index(None, "started_us"),
    # Calls in flight are few among millions that ended: the index holds only them.
    Index("ix_ledger_open", "process_id", sqlite_where=text("state = 'open'"), postgresql_where=text("state = 'open'")),
)

budgets = Table(
    "budgets",
    metadata,
    Column("scope", Text, nullable=False),  # tenant:acme, user:acme/ann, feature:acme/search, key:k1
    Column("period", Text, nullable=False),
    Column("spent_micros", BigInteger, nullable=False),
    Column("held_micros", BigInteger, nullable=False),  # the sum of its holds in budget_holds
    PrimaryKeyConstraint("scope", "period"),
)

budget_holds = Table(
    "budget_holds",
    metadata,
    Column("process_id", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("held_micros", BigInteger, nullable=False),
    Column("unbooked_micros", BigInteger, nullable=False),  # what of it calls have used up, not yet in `spent_micros`
    PrimaryKeyConstraint("process_id", "scope", "period"),
)

ledger_processes = Table(
    "ledger_processes",
    metadata,
    Column("process_id", Text, primary_key=True),
    # Counted up while the process lives. Others watch whether it moves, by their own monotonic clock: no wall clock
    # that jumps can make a living process look dead.
    Column("beat", BigInteger, nullable=False),
)
