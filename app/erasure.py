"""Erases a person, or one conversation, everywhere that this installation can reach, and says what it found and what
stays elsewhere until when.

The rows go last: until then a second call finds what is to be erased, so whoever was killed in between begins again.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from app.checkpoints import Checkpoints, thread_id
from app.records import Actor
from app.services.jobs.erasure import erase_jobs
from app.services.store.erasure import Erasures, Found, Subject
from app.services.store.store import Store
from app.telemetry.mlflow_trace import trace_id
from graphs.errors import Invalid, UpstreamError

COMMAND: Final = (sys.executable, "-m", "app.unexport")
_EMBEDDED: Final = frozenset({"extractive", "llamacpp", "scripted"})
_KEPT: Final = (
    "backups: until you delete them; they hold what was there when each was taken, sealed",
    "the ledger and usage: tenant, user id and counts, no contents; kept for the accounts",
    "the audit trail: random ids and words of ours; who they were is not to be found any more",
    "logs that were written: ids, no contents; until you rotate them",
    "documents: what the person uploaded belongs to the tenant; delete it by collection and id",
    "answers kept in the memory of other processes: until their time is over, or those processes stop",
)


class TracesNotErased(UpstreamError):
    """MLflow did not let go of traces; nothing of the store's rows was erased yet."""

    code = "traces_not_erased"


@dataclass(frozen=True, slots=True)
class Receipt:
    """`removed` counts rows and things by where they were; `stays` tells what is left elsewhere, and until when."""

    subject: Subject
    removed: Mapping[str, int]
    stays: Sequence[str]


class Erasure:
    """Of one installation. `forget` drops a tenant's kept answers."""

    def __init__(
        self,
        store: Store,
        checkpoints: Checkpoints,
        forget: Callable[[str], Awaitable[None]],
        tracking_uri: str,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._store, self._checkpoints, self._forget = store, checkpoints, forget
        self._tracking_uri, self._command = tracking_uri, command
        self._rows = Erasures(store.database)

    async def erase(self, subject: Subject, by: Actor) -> Receipt:
        """Raises Invalid for nobody, TracesNotErased, ForgetFailed, StoreUnavailable; then call it again."""
        if not subject.tenant_id or not (subject.user_id or subject.conversation_id):
            raise Invalid("name the tenant, and the user or the conversation that is to be erased")
        found = await self._rows.withhold(subject)
        await self._stop(found)
        removed = {"checkpoints": await self._drop_threads(subject, found)}
        removed["traces"] = await self._unexport(found)
        if not subject.conversation_id:
            removed["jobs"] = await erase_jobs(self._store.database, subject.tenant_id, subject.user_id)
        await self._forget(subject.tenant_id)
        removed |= await self._rows.erase(subject, by)
        # A run that was in flight may have written a step, and an exporter been at a batch, meanwhile.
        removed["checkpoints"] += await self._drop_threads(subject, found)
        if found.on_the_way:
            removed["traces"] += await self._unexport(found)
        await self._store.database.scrub()
        await self._checkpoints.scrub()
        return Receipt(subject, removed, (*_KEPT, *_at_providers(found)))

    async def _stop(self, found: Found) -> None:
        for run_id in found.open_ids:
            await self._store.leases.ask_cancel(run_id)

    async def _drop_threads(self, subject: Subject, found: Found) -> int:
        held = await self._checkpoints.threads()
        mine = held & {thread_id(subject.tenant_id, run_id) for run_id in found.run_ids}
        for thread in mine:
            await self._checkpoints.adelete_thread(thread)
        return len(mine)

    async def _unexport(self, found: Found) -> int:
        """In a process of its own, where MLflow may be imported."""
        if not found.run_ids:
            return 0
        orders = {"tracking_uri": self._tracking_uri, "trace_ids": [trace_id(run_id) for run_id in found.run_ids]}
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        told, _ = await child.communicate(orjson.dumps(orders) + b"\n")
        if child.returncode:
            raise TracesNotErased("the traces of this person are still in MLflow; the log has the cause")
        return int(told)


def _at_providers(found: Found) -> list[str]:
    outside = [name for name in found.providers if name not in _EMBEDDED]
    return [f"{name}: what was sent there is kept under its own terms" for name in outside]
