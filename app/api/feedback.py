"""A thumb and a comment on a run."""

from typing import Annotated

from fastapi import APIRouter, Body

from app.api.body import StrictRoute
from app.api.deps import Bench, RunReader
from app.api.schemas import FeedbackIn
from app.api.views import FeedbackOut

router = APIRouter(prefix="/api/ai/feedback", tags=["feedback"], route_class=StrictRoute)


@router.post("", summary="Rate a run", response_model=FeedbackOut)
async def rate(opinion: Annotated[FeedbackIn, Body()], bench: Bench, principal: RunReader) -> FeedbackOut:
    """One opinion a user and run: a later one takes its place."""
    tenant, user = principal.tenant_id, principal.user_id
    run = await bench.store.runs.get(opinion.request_id, tenant, principal.whose)
    return FeedbackOut.of(await bench.store.feedback.put(run.run_id, tenant, user, opinion.rating, opinion.comment))
