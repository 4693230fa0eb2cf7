"""The rows of alerts: written once whoever tells them, claimed before they are sent, read and acknowledged."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import Row, func, select, update

from app.ids import new_id
from app.services.alerts.tables import alerts
from app.services.database import Database, from_us, to_us
from graphs.errors import Invalid, Missing

MAX_LISTED: Final = 200
MAX_DUE: Final = 50

AlertKind = Literal["budget", "breaker", "credential", "loop"]
Delivery = Literal["none", "waiting", "sent", "failed"]
_ID = re.compile(r"[0-9a-f]{32}")
_CURSOR = re.compile(r"(\d{1,18})-([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `subject` is a budget's scope (`tenant:acme`) or a model; `share` is of the budget, 0 elsewhere."""

    alert_id: str
    kind: AlertKind
    subject: str
    detail: str
    share: float
    created_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str
    delivery: Delivery
    tries: int


@dataclass(frozen=True, slots=True)
class News:
    """What was noticed and is not written yet. Kind, subject, period and share together are told once."""

    kind: AlertKind
    subject: str
    detail: str
    period: str
    share: float = 0.0


class Shelf:
    """The table of alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, news: Sequence[News], delivery: Delivery) -> list[News]:
        """Write what nobody has told yet; gives that."""
        now_us = to_us(self._database.clock())
        fresh: list[News] = []
        async with self._database.write() as connection:
            for item in news:
                row = {
                    "alert_id": new_id(),
                    "kind": item.kind,
                    "subject": item.subject,
                    "detail": item.detail,
                    "period": item.period,
                    "share": item.share,
                    "created_us": now_us,
                    "acknowledged_by": "",
                    "delivery": delivery,
                    "tries": 0,
                    "due_us": now_us,
                }
                # Not by rowcount: psycopg gives none for an INSERT that may do nothing.
                write = self._database.insert(alerts).values(row).on_conflict_do_nothing().returning(alerts.c.alert_id)
                if (await connection.execute(write)).first() is not None:
                    fresh.append(item)
        return fresh

    async def due(self) -> list[Alert]:
        """Those that wait for a try, oldest first."""
        waits = (alerts.c.delivery == "waiting", alerts.c.due_us <= to_us(self._database.clock()))
        query = select(alerts).where(*waits).order_by(alerts.c.created_us).limit(MAX_DUE)
        async with self._database.read() as connection:
            return [_alert(row) for row in await connection.execute(query)]

    async def claim(self, alert: Alert, pause_s: float) -> bool:
        """Take the next try; it is another's again after `pause_s`. False where somebody was quicker."""
        due_us = to_us(self._database.clock()) + round(pause_s * 1e6)
        mine = (alerts.c.alert_id == alert.alert_id, alerts.c.tries == alert.tries, alerts.c.delivery == "waiting")
        async with self._database.write() as connection:
            taken = await connection.execute(update(alerts).where(*mine).values(tries=alert.tries + 1, due_us=due_us))
            return bool(taken.rowcount)

    async def postpone(self, alert: Alert, pause_s: float) -> None:
        """Its next try comes `pause_s` from now: its receiver asked for that."""
        due_us = to_us(self._database.clock()) + round(pause_s * 1e6)
        mine = (alerts.c.alert_id == alert.alert_id, alerts.c.delivery == "waiting")
        async with self._database.write() as connection:
            await connection.execute(update(alerts).where(*mine).values(due_us=due_us))

    async def close(self, alert: Alert, delivery: Delivery) -> None:
        """It will not be tried again."""
        mine = alerts.c.alert_id == alert.alert_id
        async with self._database.write() as connection:
            await connection.execute(update(alerts).where(mine).values(delivery=delivery))

    async def unread(self) -> int:
        """How many nobody has acknowledged."""
        query = select(func.count()).select_from(alerts).where(alerts.c.acknowledged_us.is_(None))
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def acknowledge(self, alert_id: str, by: str) -> Alert:
        """Mark it read; who did so first stays named. Raises Missing."""
        if _ID.fullmatch(alert_id) is None:
            raise Missing("no such alert")
        mine = alerts.c.alert_id == alert_id
        mark = {"acknowledged_us": to_us(self._database.clock()), "acknowledged_by": by}
        async with self._database.write() as connection:
            await connection.execute(update(alerts).where(mine, alerts.c.acknowledged_us.is_(None)).values(mark))
            row = (await connection.execute(select(alerts).where(mine))).one_or_none()
        if row is None:
            raise Missing("no such alert")
        return _alert(row)

    async def page(self, unread: bool, limit: int, cursor: str | None) -> tuple[list[Alert], str | None]:
        """Newest first, and the next page's cursor. Raises Invalid."""
        if not 1 <= limit <= MAX_LISTED:
            raise Invalid(f"limit must be between 1 and {MAX_LISTED}, not {limit}", field="limit")
        query = select(alerts).order_by(alerts.c.created_us.desc(), alerts.c.alert_id.desc()).limit(limit + 1)
        if unread:
            query = query.where(alerts.c.acknowledged_us.is_(None))
        if cursor is not None:
            query = query.where(_after(cursor))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        last = rows[limit - 1] if len(rows) > limit else None
        return [_alert(row) for row in rows[:limit]], None if last is None else f"{last.created_us}-{last.alert_id}"


def _after(cursor: str) -> Any:
    if (last := _CURSOR.fullmatch(cursor)) is None:
        raise Invalid("the cursor is not one that this list gave", field="cursor")
    at, key = int(last[1]), last[2]
    return (alerts.c.created_us < at) | ((alerts.c.created_us == at) & (alerts.c.alert_id < key))


def _alert(row: Row[Any]) -> Alert:
    read_us = row.acknowledged_us
    return Alert(
        alert_id=row.alert_id,
        kind=row.kind,
        subject=row.subject,
        detail=row.detail,
        share=row.share,
        created_at=from_us(row.created_us),
        acknowledged_at=None if read_us is None else from_us(read_us),
        acknowledged_by=row.acknowledged_by,
        delivery=row.delivery,
        tries=row.tries,
    )
