"""A second engine, of nothing but asyncio: what passes with it and with DBOS is what the port promises (L09)."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from app.services.jobs.ports import Carriage, Perform, Ticket


class ToyEngine:
    """Forgets everything when the process ends, and so can be nobody's default."""

    def __init__(self, executor_id: str, perform: Perform, *, at_once: int = 4, at_once_per_tenant: int = 2) -> None:
        self._executor_id, self._perform = executor_id, perform
        self._at_once, self._at_once_per_tenant = at_once, at_once_per_tenant
        self._known: dict[tuple[str, int], Carriage] = {}
        self._waiting: list[Ticket] = []
        self._doing: dict[asyncio.Task[None], Ticket] = {}

    async def carry(self, tickets: Sequence[Ticket]) -> None:
        fresh = [ticket for ticket in tickets if _key(ticket) not in self._known]
        self._known |= {_key(ticket): "carried" for ticket in fresh}
        self._waiting += fresh
        self._set_off()

    async def look(self, tickets: Sequence[Ticket]) -> list[Carriage | None]:
        return [self._known.get(_key(ticket)) for ticket in tickets]

    async def holders(self) -> frozenset[str]:
        return frozenset({self._executor_id} if self._doing else ())

    async def recover(self, executor_id: str) -> int:
        return 0

    async def let_go(self) -> int:
        return 0

    async def forget(self, tickets: Sequence[Ticket]) -> None:
        gone = {_key(ticket) for ticket in tickets}
        self._waiting = [ticket for ticket in self._waiting if _key(ticket) not in gone]
        for key in gone:
            self._known.pop(key, None)

    async def close(self) -> None:
        for task in self._doing:
            task.cancel()
        if self._doing:
            await asyncio.wait(self._doing)

    def _set_off(self) -> None:
        running = Counter(ticket.tenant_id for ticket in self._doing.values())
        for ticket in sorted(self._waiting, key=lambda each: (running[each.tenant_id], each.priority)):
            if len(self._doing) < self._at_once and running[ticket.tenant_id] < self._at_once_per_tenant:
                self._waiting.remove(ticket)
                running[ticket.tenant_id] += 1
                task = asyncio.create_task(self._perform(ticket.job_id, ticket.attempt))  # type: ignore[arg-type]
                self._doing[task] = ticket
                task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        ticket = self._doing.pop(task)
        self._known[_key(ticket)] = "ended"
        if not task.cancelled():
            task.exception()
        self._set_off()


def _key(ticket: Ticket) -> tuple[str, int]:
    return ticket.job_id, ticket.attempt
