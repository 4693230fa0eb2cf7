"""Erases a person, or one conversation, everywhere that this installation can reach, and says what it found and what
stays elsewhere until when.

The rows go last: until then a second call finds what is to be erased, so whoever was killed in between begins again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.checkpoints import Checkpoints, drop_threads
from app.records import Actor
from app.services.jobs.erasure import erase_jobs
from app.services.store.erasure import Erasures, Found, Subject
from app.services.store.store import Store
from app.traces import Traces
from app.withdrawal import Withdrawal
from graphs.errors import Invalid

_EMBEDDED: Final = frozenset({"extractive", "llamacpp", "scripted"})
_KEPT: Final = (
    "backups: until you delete them; they hold what was there when each was taken, sealed",
    "the ledger and usage: tenant, user id and counts, no contents; kept for the accounts",
    "the audit trail: random ids and words of ours; who they were is not to be found any more",
    "logs that were written: ids, no contents; until you rotate them",
    "answers kept in the memory of other processes: until their time is over, or those processes stop",
)
_THEIRS: Final = "that the person uploaded: until they are deleted, or this is asked with documents"
_NOBODYS: Final = "of the tenant whose uploader nobody wrote down: delete by collection and id what is the person's"


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
        traces: Traces,
        withdrawal: Withdrawal,
    ) -> None:
        self._store, self._checkpoints, self._forget, self._traces = store, checkpoints, forget, traces
        self._withdrawal = withdrawal
        self._rows = Erasures(store.database)

    async def erase(self, subject: Subject, by: Actor, *, documents: bool = False) -> Receipt:
        """With `documents` what the person uploaded goes too.

        Raises Invalid for nobody, TracesNotErased, ForgetFailed, StoreUnavailable; then call it again.
        """
        if not subject.tenant_id or not (subject.user_id or subject.conversation_id):
            raise Invalid("name the tenant, and the user or the conversation that is to be erased")
        if documents and subject.conversation_id:
            raise Invalid("documents go with the user who uploaded them, not with a conversation")
        found = await self._rows.withhold(subject)
        await self._stop(found)
        removed = {"checkpoints": await drop_threads(self._checkpoints, subject.tenant_id, found.run_ids)}
        removed["traces"] = await self._traces.remove(found.run_ids)
        if not subject.conversation_id:
            removed["jobs"] = await erase_jobs(self._store.database, subject.tenant_id, subject.user_id)
        if documents:
            uploads = await self._withdrawal.uploaded(subject.tenant_id, subject.user_id)
            removed |= await self._withdrawal.take(uploads, by)
        await self._forget(subject.tenant_id)
        removed |= await self._rows.erase(subject, by)
        # A run that was in flight may have written a step, and an exporter been at a batch, meanwhile.
        removed["checkpoints"] += await drop_threads(self._checkpoints, subject.tenant_id, found.run_ids)
        if found.on_the_way:
            removed["traces"] += await self._traces.remove(found.run_ids)
        await self._store.database.scrub()
        await self._checkpoints.scrub()
        stays = await self._uploads_that_stay(subject)
        return Receipt(subject, removed, (*_KEPT, *stays, *_at_providers(found)))

    async def _uploads_that_stay(self, subject: Subject) -> list[str]:
        if subject.conversation_id:
            return []
        theirs = await self._withdrawal.uploaded(subject.tenant_id, subject.user_id)
        nobodys = await self._withdrawal.uploaded(subject.tenant_id, None)
        return [
            f"{len(uploads.documents)} documents and {len(uploads.tables)} tables {what}"
            for uploads, what in ((theirs, _THEIRS), (nobodys, _NOBODYS))
            if uploads
        ]

    async def _stop(self, found: Found) -> None:
        for run_id in found.open_ids:
            await self._store.leases.ask_cancel(run_id)


def _at_providers(found: Found) -> list[str]:
    outside = [name for name in found.providers if name not in _EMBEDDED]
    return [f"{name}: what was sent there is kept under its own terms" for name in outside]
