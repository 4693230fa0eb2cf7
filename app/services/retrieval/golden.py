"""A collection's golden questions: what it must find, kept in the store's database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, insert, select

from app.ids import new_id
from app.services.database import Database, to_us
from app.services.retrieval.gate import Golden
from app.services.retrieval.tables import golden_questions as table
from graphs.errors import Conflict, Missing

MAX_QUESTIONS: Final = 1_000  # the gate asks each of them six times


@dataclass(frozen=True, slots=True)
class KeptGolden(Golden):
    golden_id: str = ""


class GoldenQuestions:
    """By tenant and collection. Texts are bounded and free of NUL by then: the API's schemas see to it."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def add(self, tenant_id: str, collection: str, golden: Sequence[Golden]) -> Sequence[KeptGolden]:
        """Raises Conflict where the collection would have more than MAX_QUESTIONS."""
        held = await self.list(tenant_id, collection)
        if len(held) + len(golden) > MAX_QUESTIONS:
            raise Conflict(f"a collection has at most {MAX_QUESTIONS} golden questions")
        kept = [KeptGolden(each.question, each.document_id, each.passage, new_id()) for each in golden]
        now_us = to_us(self._db.clock())
        rows = [
            {
                "golden_id": each.golden_id,
                "tenant_id": tenant_id,
                "collection": collection,
                "question": each.question,
                "document_id": each.document_id,
                "passage": each.passage,
                "created_us": now_us,
            }
            for each in kept
        ]
        if rows:
            async with self._db.write() as connection:
                await connection.execute(insert(table), rows)
        return kept

    async def remove(self, tenant_id: str, collection: str, golden_id: str) -> None:
        """Raises Missing."""
        gone = delete(table).where(*_in(tenant_id, collection), table.c.golden_id == golden_id)
        async with self._db.write() as connection:
            if (await connection.execute(gone)).rowcount == 0:
                raise Missing("no such golden question")

    async def forget_document(self, tenant_id: str, collection: str, document_id: str) -> None:
        """Passages quote the document, so they go with it."""
        gone = delete(table).where(*_in(tenant_id, collection), table.c.document_id == document_id)
        async with self._db.write() as connection:
            await connection.execute(gone)

    # Last: from here on `list` is this method.
    async def list(self, tenant_id: str, collection: str) -> list[KeptGolden]:
        """Oldest first."""
        query = select(table).where(*_in(tenant_id, collection)).order_by(table.c.created_us, table.c.golden_id)
        async with self._db.read() as connection:
            rows = await connection.execute(query)
            return [KeptGolden(row.question, row.document_id, row.passage, row.golden_id) for row in rows]


def _in(tenant_id: str, collection: str) -> tuple[ColumnElement[bool], ...]:
    return table.c.tenant_id == tenant_id, table.c.collection == collection
