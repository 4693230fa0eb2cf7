"""What a caller may see of jobs and do to them: their own; with the scope `runs`, the whole tenant's."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from app.jobs.items import INGEST
from app.records import Principal
from app.services.jobs.ports import ENDED, ItemNews, ItemState, ItemStatus, JobFailure, JobState, JobStatus
from app.sight import Sight
from graphs.errors import Forbidden, Missing

if TYPE_CHECKING:
    from app.workbench import Workbench

ITEMS_SHOWN: Final = 100
FAILED_SHOWN: Final = 50
FOR_OTHERS: Final = "(for others)"
LOOKED_AT: Final = 50  # jobs of a status, for those of one collection


@dataclass(frozen=True, slots=True)
class Opened:
    """A job with the first of its items, in order, and the first of those that failed."""

    job: JobState
    counts: Mapping[ItemStatus, int]
    items: Sequence[ItemState]
    failed: Sequence[ItemState]

    @property
    def is_open(self) -> bool:
        return self.job.status not in ENDED

    @property
    def left(self) -> int:
        """Items that an ended job has not brought about, and that can be asked for again."""
        if self.is_open or self.job.status == "cancelled":
            return 0
        return sum(number for status, number in self.counts.items() if status != "succeeded")


@dataclass(frozen=True, slots=True)
class Screen:
    """How an item of an ingest stands, and no more where its document is for others."""

    sight: Sight
    hidden: Collection[str]

    def item(self, item: ItemState) -> ItemState:
        if self._sees(item, item.allow_groups):
            return item
        return replace(item, name=FOR_OTHERS, input={}, result=None, error=_hushed(item.error))

    def news(self, item: ItemNews) -> ItemNews:
        if self._sees(item, item.allow_groups):
            return item
        return replace(item, name=FOR_OTHERS, result=None, error=_hushed(item.error), allow_groups=())

    def _sees(self, item: ItemState | ItemNews, groups: Sequence[str]) -> bool:
        named = {item.name, str((item.result or {}).get("documentId", ""))}
        return self.sight.sees(groups) and named.isdisjoint(self.hidden)


def _hushed(error: JobFailure | None) -> JobFailure | None:
    return None if error is None else replace(error, message="the document is for others")


async def listed(
    bench: "Workbench",
    who: Principal,
    limit: int,
    cursor: str | None,
    *,
    kind: str = "",
    status: JobStatus | None = None,
) -> tuple[list[JobState], str | None]:
    """Newest first, and the next page's cursor. Raises Forbidden, Invalid."""
    _check_reader(who)
    return await bench.jobs.page(who.tenant_id, who.whose, limit, cursor, kind=kind or None, status=status)


async def opened(bench: "Workbench", who: Principal, job_id: str) -> Opened:
    """Raises Forbidden, Missing; IndexFailed where it cannot be told which documents somebody else's job may show."""
    job = await _job(bench, who, job_id)
    items = await bench.jobs.items(job.job_id, ITEMS_SHOWN)
    failed = await bench.jobs.items(job.job_id, FAILED_SHOWN, status="failed")
    if (screen := await screen_of(bench, who, job)) is not None:
        items, failed = ([screen.item(item) for item in each] for each in (items, failed))
    return Opened(await shown(bench, who, job), await bench.jobs.counts(job.job_id), items, failed)


async def shown(bench: "Workbench", who: Principal, job: JobState) -> JobState:
    """The job without the names of failed documents that its reader may not see. Raises IndexFailed."""
    if not (job.result or {}).get("failed") or (screen := await screen_of(bench, who, job)) is None:
        return job
    failed = await bench.jobs.items(job.job_id, FAILED_SHOWN, status="failed")
    seen = {item.name for item in failed if screen.item(item) is item}
    told = [each for each in (job.result or {})["failed"] if each.get("documentId") in seen]
    return replace(job, result={**(job.result or {}), "failed": told})


async def screen_of(bench: "Workbench", who: Principal, job: JobState) -> "Screen | None":
    """What is between a reader and somebody else's ingest; None where all may be seen. Raises IndexFailed."""
    if job.kind != INGEST or job.principal.user_id == who.user_id or who.is_owner:
        return None
    try:
        hidden = await bench.library.hidden(who.tenant_id, str(job.payload["collection"]), who.sight)
    except Missing:
        hidden = frozenset()
    return Screen(who.sight, hidden)


async def of_collection(bench: "Workbench", who: Principal, collection: str) -> list[JobState]:
    """The open jobs that change a collection; if there is none, the last one that did. Raises Forbidden."""
    _check_reader(who)
    statuses: tuple[JobStatus | None, ...] = ("running", "queued", None)
    for status in statuses:
        found, _ = await bench.jobs.page(who.tenant_id, who.whose, LOOKED_AT, None, status=status)
        if mine := [job for job in found if job.payload.get("collection") == collection]:
            return mine if status else mine[:1]
    return []


async def watched(bench: "Workbench", who: Principal, collection: str, job_id: str) -> list[JobState]:
    """The same, and the job that is looked at, which may be of a collection that it has yet to make. Raises Forbidden,
    Missing."""
    found = await of_collection(bench, who, collection)
    if not job_id or any(job.job_id == job_id for job in found):
        return found
    return [*found, await _job(bench, who, job_id)]


async def cancel(bench: "Workbench", who: Principal, job_id: str) -> None:
    """Raises Forbidden, Missing, Conflict."""
    _check_reader(who)
    await bench.jobs.cancel(who.tenant_id, who.whose, job_id)


async def again(bench: "Workbench", who: Principal, job_id: str, numbers: Collection[int] | None = None) -> JobState:
    """A new job with what is left of this one, or with those of its items. Raises Forbidden, Missing, Conflict."""
    return await bench.jobs.again(who, await _job(bench, who, job_id), numbers)


async def _job(bench: "Workbench", who: Principal, job_id: str) -> JobState:
    _check_reader(who)
    return await bench.jobs.state(who.tenant_id, who.whose, job_id)


def _check_reader(who: Principal) -> None:
    if not any(who.may(scope) for scope in ("documents", "chat", "runs")):
        raise Forbidden("this credential lacks the scope documents, chat or runs")
