"""Is the process alive; can it answer; how is it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from app.api.deps import Bench, holder
from app.api.errors import Refused
from app.api.views import Problem, Status
from app.health import Health, health, seen_by
from app.records import Payer, Principal

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Alive", response_model=Status)
async def healthz() -> Status:
    """200 from the moment the socket is open."""
    return Status(status="ok")


@router.get("/readyz", summary="Ready", response_model=Status, responses={503: {"model": Problem}})
async def readyz(request: Request) -> Status:
    """200 once the default models are loaded and the handbook is searchable."""
    bench: Any = request.app.state.bench
    if bench is None or not bench.ready.is_set():
        raise Refused(503, "starting", "models and handbook are loading", retry_after_s=1)
    return Status(status="ready")


@router.get("/api/ai/health", summary="How the server is", response_model=Health)
async def read_health(bench: Bench, principal: Annotated[Principal, Depends(holder("runs"))]) -> Health:
    """Models with their breakers, the queue, the books and what waits. Others than the owner see their own tenant's
    part of it."""
    payer = Payer(principal.tenant_id, principal.user_id, principal.key_id)
    return seen_by(principal, await health(bench), bench.desk.allowed(payer))
