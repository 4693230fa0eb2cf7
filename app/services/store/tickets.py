"""Tickets that the agent's tool wrote: one for each idempotency key."""

from sqlalchemy import select

from app.ids import new_id
from app.services.store.database import Database
from app.services.store.page import build, columns, page
from app.services.store.records import Page, TicketRecord
from app.services.store.tables import tickets

_COLUMNS = columns(tickets, TicketRecord)


class Tickets:
    """A tenant's tickets."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._record = database.seals.reader(tickets, TicketRecord)

    async def create(
        self, tenant_id: str, user_id: str, run_id: str, idempotency_key: str, title: str, body: str
    ) -> TicketRecord:
        """Write it, or give the one that this key wrote before, unchanged."""
        row = {
            "ticket_id": new_id(),
            "tenant_id": tenant_id,
            "user_id": user_id,
            "run_id": run_id,
            "idempotency_key": idempotency_key,
            "title": title,
            "body": body,
            "created_at": self._db.clock(),
        }
        once = (
            self._db.insert(tickets)
            .values(self._db.seals.seal(tickets, row))
            .on_conflict_do_nothing(index_elements=["tenant_id", "idempotency_key"])
        )
        written = select(*_COLUMNS).where(
            tickets.c.tenant_id == tenant_id, tickets.c.idempotency_key == idempotency_key
        )
        async with self._db.write() as connection:
            await connection.execute(once)
            return build(self._record, (await connection.execute(written)).one())

    async def list(self, tenant_id: str, limit: int = 50, cursor: str | None = None) -> Page[TicketRecord]:
        """Newest first. Raises Invalid for limit or cursor."""
        query = select(*_COLUMNS).where(tickets.c.tenant_id == tenant_id)
        async with self._db.read() as connection:
            return await page(
                connection, query, self._record, (tickets.c.created_at, tickets.c.ticket_id), limit, cursor
            )
