"""What runs left behind, and the way back into one that is in flight."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime

from app.api.deps import Bench, Chatter, Cursor, EventNumber, Limit, RunReader
from app.api.stream import EventStream
from app.api.views import FeedbackOut, ListOut, RunOut, RunState, SpanOut, listed
from app.records import AnswerCard, Mode, RunStatus
from app.services.store.records import RunFilter

router = APIRouter(prefix="/api/ai/runs", tags=["runs"])


@router.get("", summary="List runs", response_model=ListOut[RunOut])
async def list_runs(
    bench: Bench,
    principal: RunReader,
    limit: Limit,
    cursor: Cursor = None,
    mode: Mode | None = None,
    status: RunStatus | None = None,
    model: Annotated[str | None, Query(max_length=128)] = None,
    text: Annotated[str | None, Query(max_length=512, description="Looked for in message and answer.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Inclusive.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Exclusive.")] = None,
) -> ListOut[RunOut]:
    """The caller's own, newest first; with the scope `runs`, the whole tenant's."""
    wanted = RunFilter(mode=mode, status=status, model=model, text=text, since=since, until=until)
    return listed(await bench.store.runs.list(principal.tenant_id, principal.whose, wanted, limit, cursor), RunOut.of)


@router.get("/{request_id}", summary="Read a run's answer card", response_model=AnswerCard)
async def read_run(request_id: str, bench: Bench, principal: RunReader) -> AnswerCard:
    return await bench.runner.card(principal, request_id)


@router.get(
    "/{request_id}/events",
    summary="Replay or follow a run",
    response_class=Response,
    responses={
        200: {
            "description": "The events after `Last-Event-ID`, then new ones as they come.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def run_events(
    request_id: str, bench: Bench, principal: RunReader, last_event_id: EventNumber = 0
) -> EventStream:
    await bench.runner.card(principal, request_id)  # an unknown run is a 404 and not an empty stream
    return EventStream(bench.runner.events(principal, request_id, last_event_id))


@router.get("/{request_id}/spans", summary="Read a run's trace", response_model=ListOut[SpanOut])
async def run_spans(request_id: str, bench: Bench, principal: RunReader) -> ListOut[SpanOut]:
    """Its timed pieces by start: stations, searches, model and tool calls, with what went in and came out."""
    run = await bench.store.runs.get(request_id, principal.tenant_id, principal.whose)
    spans = await bench.store.runs.spans(run.run_id, principal.tenant_id)
    return ListOut(items=[SpanOut.of(span) for span in spans])


@router.get("/{request_id}/feedback", summary="Read a run's feedback", response_model=ListOut[FeedbackOut])
async def run_feedback(request_id: str, bench: Bench, principal: RunReader) -> ListOut[FeedbackOut]:
    run = await bench.store.runs.get(request_id, principal.tenant_id, principal.whose)
    opinions = await bench.store.feedback.for_run(run.run_id, principal.tenant_id)
    return ListOut(items=[FeedbackOut.of(opinion) for opinion in opinions])


@router.post("/{request_id}/cancel", summary="Cancel a run", response_model=RunState)
async def cancel_run(request_id: str, bench: Bench, principal: Chatter) -> RunState:
    """A run in flight or one that waits; 409 for one that has ended."""
    await bench.runner.cancel(principal, request_id)
    card = await bench.runner.card(principal, request_id)
    return RunState(request_id=request_id, status=card.status)
