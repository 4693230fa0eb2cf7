"""Questions with known answers, by which a collection's new build is judged."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0030"


def upgrade() -> None:
    op.create_table(
        "golden_questions",
        sa.Column("golden_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("collection", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("passage", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("golden_id", name="pk_golden_questions"),
    )
    op.create_index("ix_golden_questions_tenant_id", "golden_questions", ["tenant_id", "collection", "created_us"])


def downgrade() -> None:
    op.drop_table("golden_questions")
