"""A thumb and a comment on a run."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from app.api.body import StrictRoute
from app.api.deps import Bench, RunReader
from app.api.once import IdempotencyKey, once
from app.api.schemas import FeedbackIn
from app.api.views import FeedbackOut

router = APIRouter(prefix="/api/ai/feedback", tags=["feedback"], route_class=StrictRoute)


@router.post("", summary="Rate a run", response_model=FeedbackOut)
async def rate(
    opinion: Annotated[FeedbackIn, Body()], bench: Bench, principal: RunReader, idempotency_key: IdempotencyKey = None
) -> Any:
    """One opinion a user and run: a later one takes its place."""
    tenant, user = principal.tenant_id, principal.user_id

    async def put(_: str | None) -> Response:
        run = await bench.store.runs.get(opinion.request_id, tenant, principal.whose)
        kept = await bench.store.feedback.put(run.run_id, tenant, user, opinion.rating, opinion.comment)
        return Response(FeedbackOut.of(kept).model_dump_json(by_alias=True), media_type="application/json")

    return await once(bench.store, principal, idempotency_key, ["feedback", opinion.model_dump()], put)
