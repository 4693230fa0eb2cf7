"""Is the process alive; can it answer."""

from typing import Any

from fastapi import APIRouter, Request

from app.api.errors import Refused
from app.api.views import Problem, Status

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
