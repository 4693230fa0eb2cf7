"""The golden questions' table as SQLAlchemy Core sees it; the store's migrations create it, a test compares the two."""

from sqlalchemy import BigInteger, Column, Index, MetaData, PrimaryKeyConstraint, Table, Text

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_name)s"})

golden_questions = Table(
    "golden_questions",
    metadata,
    Column("golden_id", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("document_id", Text, nullable=False),
    Column("passage", Text, nullable=False),  # "" where any chunk of the document is right
    Column("created_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("golden_id"),
    Index("ix_golden_questions_tenant_id", "tenant_id", "collection", "created_us"),
)
