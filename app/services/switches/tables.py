"""The switches' table as SQLAlchemy Core sees it; the store's migrations create it, a test compares the two."""

from sqlalchemy import BigInteger, Column, MetaData, PrimaryKeyConstraint, Table, Text

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})

# A row is something that is off; switching it on again deletes the row, and the audit trail keeps who did what.
switches = Table(
    "switches",
    metadata,
    Column("kind", Text, nullable=False),  # tenant | key | model
    Column("name", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
)
