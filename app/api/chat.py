"""POST /api/ai/chat: a message to a graph, answered with the answer card or with its events."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Request
from starlette.responses import Response

from app.api.body import StrictRoute
from app.api.deps import Bench, Chatter
from app.api.errors import problem, status_of
from app.api.once import REPEATED, IdempotencyKey, begin_once
from app.api.schemas import ChatIn
from app.api.stream import EventStream, left
from app.api.views import Problem
from app.records import AnswerCard, Principal, RunRequest

router = APIRouter(prefix="/api/ai", tags=["chat"], route_class=StrictRoute)


def run_request(asked: ChatIn) -> RunRequest:
    return RunRequest(
        message=asked.message,
        mode=asked.mode,
        conversation_id=asked.conversation_id,
        collection=asked.collection,
        model=asked.model,
        where=asked.filter,
        feature=asked.feature,
        retrieval=asked.retrieval.wish,
        response_schema=asked.response_schema,
    )


@router.post(
    "/chat",
    summary="Ask",
    response_model=AnswerCard,
    responses={
        200: {
            "description": "The answer card, or with `stream` its events.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        502: {"model": Problem, "description": "The run failed upstream; `requestId` opens it."},
        504: {"model": Problem, "description": "The run took too long."},
    },
)
async def chat(
    asked: Annotated[ChatIn, Body()],
    request: Request,
    bench: Bench,
    principal: Chatter,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Run a graph on a message. A run that waits for an approval answers with `status: waiting`.

    With `stream: true` the answer is server-sent events, each with an id; `/api/ai/runs/{requestId}/events` takes them
    up again. The same `Idempotency-Key` never begins a second run: it answers the card of the first, or its events from
    the beginning, whichever way that one was asked for; 422 if it stands for another request.
    """
    limits: dict[str, str] = {}

    async def begin(run_id: str | None) -> str:
        told: str = await bench.runner.start(principal, run_request(asked), told=limits.update, run_id=run_id)
        return told

    wanted = ["chat", asked.model_dump(exclude={"stream"})]
    run_id, repeated = await begin_once(bench.store, principal, idempotency_key, wanted, begin)
    request.scope["request_id"] = run_id  # one id in the answer, in the header and in the log
    if asked.stream:
        response: Response = EventStream(bench.runner.events(principal, run_id))
    else:
        card = await _settled_or_left(request, bench, principal, run_id)
        response = answered(card or await bench.runner.card(principal, run_id))
    response.headers.update(limits | (REPEATED if repeated else {}))
    return response


def answered(card: AnswerCard) -> Response:
    """The card; a run that did not come to an answer is a problem document with the run's id."""
    if card.error is not None:
        status = status_of(card.error.kind, card.error.code)
        return problem(
            status, card.error.code, card.error.message, card.request_id, retry_after_s=card.error.retry_after_s
        )
    return Response(card.model_dump_json(by_alias=True), media_type="application/json")


async def _settled_or_left(request: Request, bench: Bench, principal: Principal, run_id: str) -> AnswerCard | None:
    """Attend the run like a reader of its stream, so that a client that hangs up lets go of it; None if it did."""
    attending = asyncio.create_task(bench.runner.attend(principal, run_id))
    leaving = asyncio.create_task(left(request.receive))
    try:
        await asyncio.wait({attending, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (attending, leaving):
            task.cancel()
        await asyncio.wait({attending, leaving})
    return None if attending.cancelled() else attending.result()
