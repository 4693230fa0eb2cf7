"""Which processes that perform jobs are alive: each beats in the database, and any of them buries one that stopped.

A beat is a count. Who looks remembers when it last moved by a monotonic clock of its own, so that neither the clocks of
two machines nor a jump of one can make the living dead.
"""

import socket
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import delete, select

from app.ids import new_id
from app.services.database import Database
from app.services.jobs.tables import job_executors

BEAT_S: Final = 5.0
DEAD_AFTER_S: Final = 4 * BEAT_S


def new_executor_id() -> str:
    """A name for this process that no process before or beside it has."""
    return f"{socket.gethostname()}-{new_id()}"


class Executors:
    """The living, as this one sees them."""

    def __init__(
        self,
        database: Database,
        executor_id: str,
        *,
        dead_after_s: float = DEAD_AFTER_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.executor_id = executor_id
        self._database, self._dead_after_s, self._monotonic = database, dead_after_s, monotonic
        self._beats = 0
        self._seen: dict[str, tuple[int, float]] = {}

    async def beat(self) -> None:
        """Say that this one is alive; one that was buried meanwhile is there again."""
        self._beats += 1  # counted here: nobody is to meet a beat again that it has seen before a burial
        mine = {"executor_id": self.executor_id, "beat": self._beats}
        once_more = {"beat": self._beats}
        async with self._database.write() as connection:
            await connection.execute(
                self._database.insert(job_executors)
                .values(mine)
                .on_conflict_do_update(index_elements=["executor_id"], set_=once_more)
            )

    async def leave(self) -> None:
        """What is still in the hands of this one is anybody's from now on."""
        async with self._database.write() as connection:
            mine = job_executors.c.executor_id == self.executor_id
            await connection.execute(delete(job_executors).where(mine))

    async def living(self) -> frozenset[str]:
        """Bury those whose beat has not moved for so long, and give the others."""
        async with self._database.read() as connection:
            found = {row.executor_id: row.beat for row in await connection.execute(select(job_executors))}
        now = self._monotonic()
        seen = self._seen
        self._seen = {
            name: seen[name] if name in seen and seen[name][0] == beat else (beat, now) for name, beat in found.items()
        }
        late = {name for name, (_, since) in self._seen.items() if now - since >= self._dead_after_s}
        buried = {name for name in late - {self.executor_id} if await self._bury(name, found[name])}
        return frozenset(found.keys() - buried)

    async def _bury(self, executor_id: str, beat: int) -> bool:
        """False for one that has beaten since."""
        late = (job_executors.c.executor_id == executor_id, job_executors.c.beat == beat)
        async with self._database.write() as connection:
            return bool((await connection.execute(delete(job_executors).where(*late))).rowcount)
