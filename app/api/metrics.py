"""`/metrics` for Prometheus: to a scraper on this machine without a key, to others with the scope `runs`."""

import time
from math import nan
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from app.api.deps import Bench
from app.health import Health, health
from app.records import Principal
from graphs.errors import Forbidden

if TYPE_CHECKING:
    from app.telemetry.metrics import Gauges

router = APIRouter(tags=["metrics"])


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus' text or OpenMetrics.", "content": {"text/plain": {}}}},
)
async def metrics(request: Request, bench: Bench) -> Response:
    principal: Principal | None = request.scope["principal"]  # None for a local scraper, whom the guard let in
    if principal is not None and not principal.may("runs"):
        raise Forbidden("this credential lacks the scope runs")
    counted = bench.watch.metrics
    _show(await health(bench), counted.gauges)
    for tool, state in bench.tools.breakers(time.monotonic()).items():
        counted.gauges.tool_breaker_is(tool, state)
    body, content_type = counted.text(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


def _show(now: Health, gauges: "Gauges") -> None:
    """Bring the gauges to what is now."""
    for target in now.targets:
        gauges.breaker_is(target.name, target.breaker)
    for kind in ("tenant", "key", "model"):
        gauges.off.labels(kind).set(sum(switch.kind == kind for switch in now.switches))
    gauges.running.set(now.queue.running)
    gauges.waiting.set(now.queue.waiting)
    gauges.commits.set(now.commits_waiting)
    gauges.backlog.set(nan if now.trace_backlog is None else now.trace_backlog)
    gauges.unread.set(nan if now.unread_alerts is None else now.unread_alerts)
