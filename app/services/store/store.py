"""The store: everything the product remembers, except vectors (the library) and agents' checkpoints (LangGraph)."""

from typing import Self

from sqlalchemy import text

from app.services.audit import Trail
from app.services.store.approvals import Approvals
from app.services.store.conversations import Conversations
from app.services.store.database import Clock, Database, utc_now
from app.services.store.documents import Documents
from app.services.store.escalations import Escalations
from app.services.store.feedback import Feedback
from app.services.store.keys import Keys
from app.services.store.leases import Leases
from app.services.store.notices import Notices
from app.services.store.repeats import Repeats
from app.services.store.runs import Runs
from app.services.store.tickets import Tickets
from app.services.vault import Vault


class Store:
    """One open database, by subject. Each method is one transaction and raises StoreUnavailable if that fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.keys = Keys(database)
        self.conversations = Conversations(database)
        self.runs = Runs(database)
        self.leases = Leases(database)
        self.approvals = Approvals(database)
        self.tickets = Tickets(database)
        self.feedback = Feedback(database)
        self.documents = Documents(database)
        self.escalations = Escalations(database)
        self.notices = Notices(database)
        self.repeats = Repeats(database)
        self.audit = Trail(database)

    @classmethod
    async def open(cls, url: str, clock: Clock = utc_now, vault: Vault | None = None) -> Self:
        """`sqlite+aiosqlite:///path` or `postgresql+psycopg://...`, brought to this version's schema.

        Any number of processes may open the same one. Without a vault contents are neither sealed nor opened: for
        what touches none. Raises ValueError for another URL, SchemaTooNew for a database of a newer version,
        VaultError for a vault that lacks a key which the database's contents need, StoreUnavailable.
        """
        return cls(await Database.open(url, clock, vault))

    @property
    def database(self) -> Database:
        """For services that keep tables of their own in it."""
        return self._database

    async def close(self) -> None:
        await self._database.close()

    async def ping(self) -> None:
        """Raises StoreUnavailable unless the database answers."""
        async with self._database.read() as connection:
            await connection.execute(text("SELECT 1"))
