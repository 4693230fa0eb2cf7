"""Jobs: asked for, watched, called off, and what became of each of their lines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import ValidationError

from app import joblist
from app.api.body import StrictRequest, StrictRoute, loads, valid
from app.api.deps import Bench, Cursor, EventNumber, Limit, holder
from app.api.errors import Refused
from app.api.job_views import JOBS, MAX_RUNS, JobIn, JobItemNews, JobItemOut, JobOut, RunIn, RunsIn
from app.api.schemas import Url
from app.api.stream import EventStream
from app.api.views import ListOut, Problem
from app.jobs.items import RUNS
from app.records import AnswerCard, Principal, RunEvent
from app.services.jobs.ports import ENDED, ItemState, JobRequest, JobStatus
from graphs.errors import Forbidden, Invalid, Missing

router = APIRouter(prefix="/api/ai/jobs", tags=["jobs"], route_class=StrictRoute)

JSON_LINES: Final = frozenset({"application/jsonl", "application/x-ndjson", "application/x-jsonlines"})

Asker = Annotated[Principal, Depends(holder("chat", "documents"))]
JobReader = Annotated[Principal, Depends(holder("documents", "chat", "runs"))]
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255, description="Names the same job again.")]

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": [shape.model_json_schema() for shape in JOBS.values()]}},
            "application/jsonl": {"schema": {"type": "string", "description": "A run a line."}},
        },
    }
}


@router.post(
    "",
    summary="Ask for a job",
    status_code=202,
    response_model=JobOut,
    openapi_extra=_BODY,
    responses={409: {"model": Problem}, 413: {"model": Problem}, 415: {"model": Problem}},
)
async def submit_job(
    request: Request,
    bench: Bench,
    principal: Asker,
    idempotency_key: IdempotencyKey = None,
    callback_url: Annotated[Url | None, Query(alias="callbackUrl", description="As in JSON.")] = None,
) -> JobOut:
    """`runs` are chat, RAG and agent runs, as JSON or as JSON Lines with one run in each: they need the scope `chat`
    and go through the caller's own limits and budget; what came of each is at `/api/ai/jobs/{jobId}/items`. `rebuild`
    and `optimize` are of a collection and need `documents`; `retention` needs `owner`.

    The same `Idempotency-Key` gives the same job; 409 if it stands for another batch.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted: JobIn
    if kind in JSON_LINES:
        wanted = await asyncio.to_thread(_of_lines, await request.body())
    elif kind == "application/json":
        wanted = await asyncio.to_thread(_wanted, await StrictRequest.json(request))  # type: ignore[arg-type]
    else:
        raise Refused(415, "unsupported_media_type", "send application/json or application/jsonl", field="Content-Type")
    asked = JobRequest(
        principal,
        wanted.kind,
        wanted.payload(),
        await asyncio.to_thread(wanted.items),
        priority=wanted.priority,
        idempotency_key=idempotency_key,
        callback_url=wanted.callback_url or callback_url,
    )
    return JobOut.of(await bench.jobs.submit(asked))


@router.get("", summary="List jobs", response_model=ListOut[JobOut])
async def list_jobs(
    bench: Bench,
    principal: JobReader,
    limit: Limit,
    cursor: Cursor = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    status: JobStatus | None = None,
) -> ListOut[JobOut]:
    """The caller's own, newest first; with the scope `runs`, the whole tenant's."""
    who = principal.whose
    found, after = await bench.jobs.page(principal.tenant_id, who, limit, cursor, kind=kind, status=status)
    return ListOut(items=[JobOut.of(await joblist.shown(bench, principal, job)) for job in found], next_cursor=after)


@router.get("/{job_id}", summary="Read a job", response_model=JobOut)
async def read_job(job_id: str, bench: Bench, principal: JobReader) -> JobOut:
    job = await bench.jobs.state(principal.tenant_id, principal.whose, job_id)
    return JobOut.of(await joblist.shown(bench, principal, job))


@router.get("/{job_id}/items", summary="Read what became of a job's lines", response_model=ListOut[JobItemOut])
async def read_items(
    job_id: str,
    bench: Bench,
    principal: JobReader,
    limit: Limit,
    cursor: Annotated[str | None, Query(max_length=512, description="`nextCursor` of the page before.")] = None,
) -> ListOut[JobItemOut]:
    """Runs or documents in the order in which they were sent; each run with its answer card."""
    job = await bench.jobs.state(principal.tenant_id, principal.whose, job_id)
    found = await bench.jobs.items(job.job_id, limit, _number(cursor))
    screen = await joblist.screen_of(bench, principal, job)
    seen = found if screen is None else [screen.item(item) for item in found]
    items = [JobItemOut.of(item, await _card(bench, principal, job.kind, item)) for item in seen]
    return ListOut(items=items, next_cursor=str(found[-1].number) if len(found) == limit else None)


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses={
        200: {
            "description": "What is settled behind item `Last-Event-ID`, then what is new as it comes.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def job_events(job_id: str, bench: Bench, principal: JobReader, last_event_id: EventNumber = 0) -> EventStream:
    """`item.begun` for each document or run in hand, again with each stage that a document has passed, `item.succeeded`
    or `item.failed` for its end, `job.progress`, and at last `job.succeeded`, `job.failed` or `job.cancelled`.

    The id of an event is the number of the item up to which all are settled and told; whoever comes back with it as
    `Last-Event-ID` misses none, and may hear of some behind it again. `stream.failed` ends a stream that broke off.
    """
    job = await bench.jobs.state(principal.tenant_id, principal.whose, job_id)  # unknown: a 404 and no empty stream
    return EventStream(_told(bench, principal, job.job_id, last_event_id), broken="stream.failed")


@router.delete(
    "/{job_id}",
    summary="Cancel a job",
    response_model=JobOut,
    responses={409: {"model": Problem, "description": "It has ended."}},
)
async def cancel_job(job_id: str, bench: Bench, principal: JobReader) -> JobOut:
    """One that waits never begins; one that runs stops within seconds. What is done of it stays done."""
    return JobOut.of(await bench.jobs.cancel(principal.tenant_id, principal.whose, job_id))


@router.post(
    "/{job_id}/retry",
    summary="Ask again for what is left of a job",
    status_code=202,
    response_model=JobOut,
    responses={409: {"model": Problem, "description": "It has not ended, was called off, or has nothing left to do."}},
)
async def retry_job(job_id: str, bench: Bench, principal: JobReader) -> JobOut:
    """A new job with the documents or runs of this one that did not succeed, under the caller's own rights."""
    job = await bench.jobs.state(principal.tenant_id, principal.whose, job_id)
    return JobOut.of(await bench.jobs.again(principal, job))


async def _told(bench: Bench, principal: Principal, job_id: str, after: int) -> AsyncIterator[RunEvent]:
    async with aclosing(bench.jobs.follow(job_id, after)) as looks:
        async for news in looks:
            if principal.key_id and await bench.store.keys.find(principal.key_id) is None:
                raise Forbidden("the key is no longer valid")
            screen = await joblist.screen_of(bench, principal, news.state) if news.items else None
            for item in news.items:  # under the id of the look before: whoever is cut off among them hears them again
                yield RunEvent(
                    after,
                    f"item.{item.status}",
                    JobItemNews.of(item if screen is None else screen.news(item)).model_dump(by_alias=True),
                )
            after = news.through
            kind = f"job.{news.state.status}" if news.state.status in ENDED else "job.progress"
            yield RunEvent(
                after,
                kind,
                JobOut.of(await joblist.shown(bench, principal, news.state)).model_dump(mode="json", by_alias=True),
            )


async def _card(bench: Bench, principal: Principal, kind: str, item: ItemState) -> AnswerCard | None:
    if kind != RUNS or item.ref is None or item.status == "waiting":
        return None
    try:
        card: AnswerCard = await bench.runner.card(principal, item.ref)
    except Missing:  # it has not begun yet, or went with its conversation
        return None
    return card


def _wanted(body: Any) -> JobIn:
    """Read by its kind, so that what is wrong is told of that kind alone."""
    kind = body.get("kind") if isinstance(body, dict) else RUNS
    if not isinstance(kind, str) or kind not in JOBS:
        raise Invalid(f"kind must be one of {', '.join(JOBS)}", field="kind")
    return valid(JOBS[kind], body)


def _of_lines(body: bytes) -> RunsIn:
    lines = [(number, line) for number, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if not 1 <= len(lines) <= MAX_RUNS:
        raise Invalid(f"a batch has 1 to {MAX_RUNS} lines, not {len(lines)}", field="runs")
    return RunsIn(kind=RUNS, runs=[_run(place, number, line) for place, (number, line) in enumerate(lines)])


def _run(at: int, number: int, line: bytes) -> RunIn:
    """The run `at` that place of the batch, from that line of its file. They differ where lines are empty."""
    try:
        return RunIn.model_validate(loads(line))
    except (ValidationError, Refused) as error:
        wrong = error.errors(include_url=False, include_input=False)[0] if isinstance(error, ValidationError) else None
        detail = error.detail if isinstance(error, Refused) else str(wrong and wrong["msg"])
        place = [] if wrong is None else [str(part) for part in wrong["loc"]]
        raise Invalid(f"line {number}: {detail}", field=".".join(["runs", str(at), *place])) from error


def _number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 9):
        raise Invalid("the cursor is not one that this list gave", field="cursor")
    return int(cursor)
