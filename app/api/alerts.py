"""Alerts: budgets that are nearly spent, models that fail, a server that stood still."""

from fastapi import APIRouter

from app.api.deps import Bench, Cursor, Limit, Owner
from app.api.views import AlertOut, ListOut

router = APIRouter(prefix="/api/ai/alerts", tags=["alerts"])


@router.get("", summary="List alerts", response_model=ListOut[AlertOut])
async def list_alerts(
    bench: Bench, principal: Owner, limit: Limit, cursor: Cursor = None, unread: bool = False
) -> ListOut[AlertOut]:
    """All tenants', newest first."""
    alerts, following = await bench.watch.alerts.page(unread=unread, limit=limit, cursor=cursor)
    return ListOut(items=[AlertOut.of(alert) for alert in alerts], next_cursor=following)


@router.post("/{alert_id}/acknowledge", summary="Acknowledge an alert", response_model=AlertOut)
async def acknowledge(alert_id: str, bench: Bench, principal: Owner) -> AlertOut:
    """Again changes nothing: who read it first stays named."""
    return AlertOut.of(await bench.watch.alerts.acknowledge(alert_id, str(principal.actor)))
