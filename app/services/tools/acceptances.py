"""Which definitions of tools an operator has accepted.

The database holds them; every process keeps a view, which the registry refreshes, and asks nobody when a run begins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from app.records import Actor
from app.services.audit import audited
from app.services.database import Database, from_us, to_us
from app.services.tools.tables import acceptances
from graphs.toolhash import canonical, definition_hash
from graphs.types import ToolSpec

REFRESH_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The last definition that was accepted under a name: its hash, and its text."""

    digest: str
    definition: str
    accepted_at: datetime


class Acceptances:
    """The accepted definitions as this process sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._view: Mapping[str, Accepted] = {}

    def of(self, name: str) -> Accepted | None:
        """What was accepted under that name; None where nothing was."""
        return self._view.get(name)

    async def accept(self, spec: ToolSpec, by: Actor) -> None:
        """From now on this definition holds: for this process at once, for others within REFRESH_S."""
        digest = definition_hash(spec)
        values = {"digest": digest, "definition": text_of(spec), "accepted_us": to_us(self._database.clock())}
        row = self._database.insert(acceptances).values(name=spec.name, **values)
        async with audited(self._database) as journal:
            await journal.connection.execute(row.on_conflict_do_update(index_elements=["name"], set_=values))
            await journal.note("tool.accepted", by, "", spec.name, {"definition": digest})
        await self.refresh()

    async def refresh(self) -> None:
        """Look at the database."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(acceptances))
            self._view = {row.name: Accepted(row.digest, row.definition, from_us(row.accepted_us)) for row in rows}


def text_of(spec: ToolSpec) -> str:
    """What is accepted, to be read and compared: the definition that the hash is of."""
    return canonical({"name": spec.name, "description": spec.description, "parameters": spec.parameters})
