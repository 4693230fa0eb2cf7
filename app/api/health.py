"""Is the process alive; can it answer; how is it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from app.api.deps import Bench, holder
from app.api.errors import Refused
from app.api.views import Problem, Readiness, Status
from app.health import Health, health, seen_by
from app.records import Payer, Principal

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive", response_model=Status)
async def healthz() -> Status:
    """200 from the moment the socket is open."""
    return Status(status="ok")


@router.get("/readyz", summary="Ready", response_model=Readiness, responses={503: {"model": Problem}})
async def readyz(request: Request) -> Readiness:
    """200 once the default models are loaded and the handbook is searchable, and while the store answers."""
    bench: Any = request.app.state.bench
    if bench is None:
        raise Refused(503, "starting", "the models are being loaded", retry_after_s=1)
    if not bench.ready.is_set():
        raise Refused(503, "starting", "the handbook is being made searchable", retry_after_s=1)
    return Readiness(status="ready", trace_backlog=await bench.store.runs.backlog())


@router.get("/api/ai/health", summary="How the server is", response_model=Health)
async def read_health(bench: Bench, principal: Annotated[Principal, Depends(holder("runs"))]) -> Health:
    """Models with their breakers, the queue, the books and what waits. Others than the owner see their own tenant's
    part of it."""
    payer = Payer(principal.tenant_id, principal.user_id, principal.key_id)
    return seen_by(principal, await health(bench), bench.desk.allowed(payer))
