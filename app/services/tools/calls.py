"""The book of calls that have an effect: each is written down before it runs and when it has ended.

A call that stands in it and is asked for again, after a crash, may have had its effect. What was asked and answered is
not kept, only a hash of the answer; the audit trail says in the same transaction who had it run.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final, Literal

from sqlalchemy import delete, select, update

from app.records import Actor
from app.services.audit import audited
from app.services.database import Database, to_us
from app.services.tools.tables import calls
from app.services.tools.tool import ToolCall
from graphs.errors import UpstreamError
from graphs.types import Risk

log = logging.getLogger("pilothouse.tools")

KEPT: Final = timedelta(days=90)  # longer than any run waits for a person, after which no call comes again
FORGET_S: Final = 6 * 3_600.0

CallOutcome = Literal["begun", "ok", "retry", "refused"]


@dataclass(frozen=True, slots=True)
class Called:
    """A call as it is written down: of which tool, at which definition, and how risky that is."""

    tool: str
    digest: str
    risk: Risk


class CallBook:
    """Raises StoreUnavailable where the database does not answer: what cannot be written down does not run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, call: ToolCall, called: Called) -> CallOutcome | None:
        """Write it down; None the first time, how it ended (or that it had begun) where it stands there already."""
        row = {
            "call_key": call.idempotency_key,
            "tenant_id": call.tenant_id,
            "run_id": call.run_id,
            "tool": called.tool,
            "digest": called.digest,
            "begun_us": to_us(self._database.clock()),
            "outcome": "begun",
            "result_hash": "",
        }
        fresh = self._database.insert(calls).values(row).on_conflict_do_nothing(index_elements=["call_key"])
        once = fresh.returning(calls.c.call_key)
        earlier = select(calls.c.outcome).where(calls.c.call_key == call.idempotency_key)
        async with audited(self._database) as journal:
            if (await journal.connection.execute(once)).first() is None:
                found: CallOutcome = (await journal.connection.execute(earlier)).scalar_one()
                return found
            facts = {"risk": called.risk, "run": call.run_id, "definition": called.digest}
            await journal.note("tool.called", Actor(call.tenant_id, call.user_id), call.tenant_id, called.tool, facts)
        return None

    async def end(self, call: ToolCall, outcome: CallOutcome, content: str) -> None:
        """Note how it ended. Its effect is there by now, so a database that is away is logged and stops nothing."""
        values = {
            "ended_us": to_us(self._database.clock()),
            "outcome": outcome,
            "result_hash": sha256(content.encode("utf-8", "surrogatepass")).hexdigest(),
        }
        try:
            async with self._database.write() as connection:
                await connection.execute(update(calls).filter_by(call_key=call.idempotency_key).values(**values))
        except UpstreamError:
            log.exception("a tool's call has ended and stays written down as begun", extra={"run": call.run_id})

    async def keep(self) -> None:
        """For ever: forget what is too old to come again."""
        while True:
            try:
                await self.forget()
            except Exception:
                # The loop of a worker: a database that is away must not end it.
                log.exception("old calls of tools could not be forgotten")
            await asyncio.sleep(FORGET_S)

    async def forget(self) -> None:
        """Drop the calls of runs that ended long ago."""
        before_us = to_us(self._database.clock() - KEPT)
        async with self._database.write() as connection:
            await connection.execute(delete(calls).where(calls.c.begun_us < before_us))
