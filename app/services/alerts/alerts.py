"""Alerts: what an operator should know without looking, told once by whichever process notices it first.

Noting costs the caller a look into a dictionary. A task behind writes what is new and sends it to the webhook; a row
knows how far its delivery has come, so that another process, or the next start, goes on with it. A receiver may get an
alert twice (a process died between sending and noting it) and misses one only if it refused all tries.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from app.outbound.webhooks import Receipt
from app.services.alerts.marks import Account, Marks
from app.services.alerts.shelf import Alert, AlertKind, News, Shelf
from app.services.database import Database

log = logging.getLogger("pilothouse.alerts")

POLL_S: Final = 5.0  # how often rows that other processes left waiting are looked for
PAUSES_S: Final = (10.0, 30.0, 120.0, 600.0)  # between five tries; the first is longer than one try may take
MAX_UNTOLD: Final = 1_000  # while the database is away


class Courier(Protocol):
    """Where alerts are sent."""

    async def send(self, alert: Alert) -> Receipt:
        """One try, and how it ended."""
        ...


class Alerts:
    """The alerts of an installation. The workbench runs `keep` behind it; `note_*` are to be called on its loop."""

    def __init__(
        self,
        database: Database,
        *,
        shares: Sequence[float] = (),
        courier: Courier | None = None,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """`shares` are those of a budget at which it is told; between two tries of `courier` is one of `pauses_s`."""
        self._clock, self._shelf = database.clock, Shelf(database)
        self._courier, self._pauses_s = courier, tuple(pauses_s)
        self._marks = Marks(shares)
        self._open: set[tuple[AlertKind, str]] = set()
        self._untold: list[News] = []
        self._wake = asyncio.Event()

    def note_spent(self, account: Account, spent_micros: int, limit_micros: int) -> None:
        """Hear how a budget stands after a settlement."""
        share = self._marks.passed(account, spent_micros, limit_micros)
        if share is not None:
            usd = f"{spent_micros / 1e6:.2f} of {limit_micros / 1e6:.2f} USD"
            detail = f"{spent_micros / limit_micros:.0%} of the budget of {account.period} is spent: {usd}"
            self._note(News("budget", str(account.scope), detail, account.period, share))

    def note_breaker(self, target: str, state: str) -> None:
        """Hear of a model's breaker: `open`, `half_open`, `closed`, or `disabled` where its credential is refused."""
        if state == "open":
            self._begin("breaker", target, "the model keeps failing and is left alone for a while")
        elif state == "disabled":
            self._begin("credential", target, "the provider refuses our credential; the model rests until it is mended")
        elif state == "closed":
            self._open -= {("breaker", target), ("credential", target)}

    def note_late_loop(self, process: str, late_s: float) -> None:
        """Hear that the event loop stood still; told once an hour."""
        detail = f"something kept the event loop for {late_s:.1f} s; the log has its stack"
        self._note(News("loop", process, detail, self._hour()))

    def _begin(self, kind: AlertKind, subject: str, detail: str) -> None:
        """Tell a state when it begins; a probe that fails does not begin it anew."""
        if (kind, subject) not in self._open:
            self._open.add((kind, subject))
            self._note(News(kind, subject, detail, self._hour()))

    def _note(self, news: News) -> None:
        if len(self._untold) >= MAX_UNTOLD:
            log.error("an alert is lost: too many wait for the database", extra={"kind": news.kind})
            return
        self._untold.append(news)
        self._wake.set()

    def _hour(self) -> str:
        return f"{self._clock():%Y-%m-%dT%H}"

    async def keep(self) -> None:
        """For ever: write down what was noted and deliver what waits."""
        while True:
            self._wake.clear()
            try:
                await self.tell()
                await self.deliver()
            except Exception:
                # The loop of a worker: a database that is away for a minute must not end it.
                log.exception("alerts could not be told; trying again")
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass  # others' rows may be due

    async def tell(self) -> None:
        """Write what was noted; what another process has told already is not told again."""
        news = tuple(self._untold)
        if not news:
            return
        fresh = await self._shelf.add(news, "none" if self._courier is None else "waiting")
        del self._untold[: len(news)]
        for item in fresh:
            log.warning("alert", extra={"kind": item.kind, "subject": item.subject, "detail": item.detail})

    async def deliver(self) -> None:
        """Try what is due, once each. A row is claimed first, so that no two processes send it at the same time."""
        if self._courier is None:
            return
        for alert in await self._shelf.due():
            if alert.tries > len(self._pauses_s):
                await self._give_up(alert)  # its last try died with its process
                continue
            last = alert.tries == len(self._pauses_s)
            if not await self._shelf.claim(alert, self._pauses_s[-1 if last else alert.tries]):
                continue
            receipt = await self._courier.send(alert)
            if receipt.taken:
                await self._shelf.close(alert, "sent")
            elif last or receipt.final:
                await self._give_up(alert)
            elif receipt.retry_after_s is not None and receipt.retry_after_s > self._pauses_s[alert.tries]:
                await self._shelf.postpone(alert, receipt.retry_after_s)

    async def _give_up(self, alert: Alert) -> None:
        await self._shelf.close(alert, "failed")
        log.error("an alert was not delivered", extra={"alertId": alert.alert_id, "kind": alert.kind})

    async def unread(self) -> int:
        """How many nobody has acknowledged."""
        return await self._shelf.unread()

    async def acknowledge(self, alert_id: str, by: str) -> Alert:
        """Mark it read; who did so first stays named. Raises Missing."""
        return await self._shelf.acknowledge(alert_id, by)

    async def page(
        self, *, unread: bool = False, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Alert], str | None]:
        """Newest first, and the next page's cursor. Raises Invalid."""
        return await self._shelf.page(unread, limit, cursor)
