"""The tools' tables as SQLAlchemy Core sees them; the store's migrations create them, a test compares the two."""

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"})

# The definition of a tool that an operator has accepted: the last one, whose words show what a new one changes.
acceptances = Table(
    "tool_acceptances",
    metadata,
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("accepted_us", BigInteger, nullable=False),
)
# Calls of tools with an effect, each written down before it runs. What was asked and answered is not here.
calls = Table(
    "tool_calls",
    metadata,
    Column("call_key", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("digest", Text, nullable=False),  # of the definition
    Column("begun_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("outcome", Text, nullable=False),  # begun | ok | retry | refused
    Column("result_hash", Text, nullable=False),
    Index(None, "begun_us"),
    Index(None, "tenant_id", "run_id"),
)
