"""Alerts: told once whoever notices, delivered until they are taken, there until somebody has read them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from app.outbound.webhooks import Receipt
from app.services.alerts.alerts import PAUSES_S, Alerts
from app.services.alerts.marks import Marks
from app.services.alerts.shelf import Alert, News, Shelf
from app.services.quota.book import Account, Scope
from app.services.store.store import Store
from graphs.errors import Invalid, Missing

ACME = Account(Scope("tenant", "acme"), "2026-11")
LIMIT = 50_000_000
SHARES = (0.5, 0.8, 1.0)
TAKEN, REFUSED = Receipt(204, "taken"), Receipt(503, "refused")


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 17, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **units: float) -> None:
        self.now += timedelta(**units)


@dataclass
class Courier:
    """Takes what it is sent if `takes`."""

    takes: bool = True
    refusal: Receipt = REFUSED
    sent: list[Alert] = field(default_factory=list)

    async def send(self, alert: Alert) -> Receipt:
        self.sent.append(alert)
        return TAKEN if self.takes else self.refusal


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(store_url: str, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(store_url, clock)
    yield opened
    await opened.close()


async def kinds(alerts: Alerts) -> list[tuple[str, str, float]]:
    await alerts.tell()
    return [(alert.kind, alert.subject, alert.share) for alert in (await alerts.page())[0]]


async def test_each_share_of_a_budget_is_told_when_it_is_passed_and_once(store: Store) -> None:
    alerts = Alerts(store.database, shares=SHARES)
    for spent in (0, 24_999_999):
        alerts.note_spent(ACME, spent, LIMIT)
    assert await kinds(alerts) == []
    for spent in (25_000_000, 25_000_001, 39_999_999):
        alerts.note_spent(ACME, spent, LIMIT)
    assert await kinds(alerts) == [("budget", "tenant:acme", 0.5)]
    alerts.note_spent(ACME, 50_000_000, LIMIT)
    assert [share for _, _, share in await kinds(alerts)] in ([0.5, 1.0], [1.0, 0.5])
    alerts.note_spent(ACME, 60_000_000, LIMIT)
    assert len(await kinds(alerts)) == 2
    (told, _) = (await alerts.page())[0]
    assert "of 50.00 USD" in told.detail


async def test_a_late_bill_of_last_month_alarms_nobody_about_this_one(store: Store) -> None:
    alerts = Alerts(store.database, shares=SHARES)
    december = Account(ACME.scope, "2026-12")
    alerts.note_spent(ACME, 49_000_000, LIMIT)
    alerts.note_spent(december, 1_000, LIMIT)
    alerts.note_spent(ACME, 49_100_000, LIMIT)
    assert await kinds(alerts) == [("budget", "tenant:acme", 0.8)]
    alerts.note_spent(december, 25_000_000, LIMIT)
    assert len(await kinds(alerts)) == 2


async def test_several_processes_tell_the_same_thing_once(store: Store) -> None:
    couriers = [Courier() for _ in range(3)]
    processes = [Alerts(store.database, shares=SHARES, courier=courier) for courier in couriers]
    for process in processes:
        process.note_spent(ACME, 41_000_000, LIMIT)
        process.note_breaker("big", "open")
    await asyncio.gather(*(process.tell() for process in processes))
    await asyncio.gather(*(process.deliver() for process in processes))
    assert sorted(alert.kind for courier in couriers for alert in courier.sent) == ["breaker", "budget"]
    assert await processes[0].unread() == 2


async def test_what_is_written_is_given_back_and_what_another_wrote_first_is_not(store: Store) -> None:
    shelf = Shelf(store.database)
    old, new = News("loop", "p1", "late", "2026-11-24T17"), News("loop", "p2", "late", "2026-11-24T17")
    assert await shelf.add([old], "none") == [old]
    assert await shelf.add([old, new, new], "none") == [new]


async def test_a_new_process_does_not_tell_again_what_was_told(store: Store) -> None:
    for _ in range(2):
        alerts = Alerts(store.database, shares=SHARES)
        alerts.note_spent(ACME, 41_000_000, LIMIT)
        assert await kinds(alerts) == [("budget", "tenant:acme", 0.8)]


async def test_an_open_breaker_is_told_when_it_opens_and_not_at_every_probe(store: Store, clock: Clock) -> None:
    alerts = Alerts(store.database)
    for state in ("open", "half_open", "open", "half_open", "open"):
        alerts.note_breaker("big", state)
        clock.move(hours=1)
    assert await kinds(alerts) == [("breaker", "big", 0.0)]
    alerts.note_breaker("big", "closed")
    alerts.note_breaker("big", "open")
    assert len(await kinds(alerts)) == 2


async def test_u05_a_refused_credential_is_an_alert_of_its_own(store: Store) -> None:
    alerts = Alerts(store.database)
    alerts.note_breaker("big", "disabled")
    alerts.note_breaker("big", "disabled")
    assert await kinds(alerts) == [("credential", "big", 0.0)]


async def test_what_is_refused_is_tried_again_later_and_given_up_after_five_tries(store: Store, clock: Clock) -> None:
    courier = Courier(takes=False)
    alerts = Alerts(store.database, courier=courier)
    alerts.note_breaker("big", "open")
    await alerts.tell()
    for tries, pause_s in enumerate((*PAUSES_S, 3600.0), start=1):
        await alerts.deliver()
        await alerts.deliver()
        assert len(courier.sent) == tries
        clock.move(seconds=pause_s + 1)
    await alerts.deliver()
    assert len(courier.sent) == 5
    ((alert,), _) = await alerts.page()
    assert alert.delivery == "failed"


async def test_a_receiver_that_asks_for_time_gets_it_and_one_that_is_gone_is_left_at_once(
    store: Store, clock: Clock
) -> None:
    courier = Courier(takes=False, refusal=Receipt(429, "busy", retry_after_s=300.0))
    alerts = Alerts(store.database, courier=courier)
    alerts.note_breaker("big", "open")
    await alerts.tell()
    for move_s, tries in ((0, 1), (299, 1), (2, 2)):
        clock.move(seconds=move_s)
        await alerts.deliver()
        assert len(courier.sent) == tries
    courier.refusal = Receipt(410, "gone", final=True)
    clock.move(seconds=301)
    await alerts.deliver()
    ((alert,), _) = await alerts.page()
    assert (len(courier.sent), alert.delivery) == (3, "failed")


async def test_a_restart_sends_what_was_not_delivered(store: Store, clock: Clock) -> None:
    before = Alerts(store.database, courier=Courier(takes=False))
    before.note_breaker("big", "open")
    await before.tell()
    await before.deliver()
    clock.move(minutes=1)
    courier = Courier()
    after = Alerts(store.database, courier=courier)
    await after.deliver()
    await after.deliver()
    assert [alert.subject for alert in courier.sent] == ["big"]
    ((alert,), _) = await after.page()
    assert (alert.delivery, alert.tries) == ("sent", 2)


async def test_a_last_try_that_died_with_its_process_is_not_repeated_for_ever(store: Store, clock: Clock) -> None:
    class Dies(Courier):
        async def send(self, alert: Alert) -> Receipt:
            self.sent.append(alert)
            raise KeyboardInterrupt

    courier = Dies()
    alerts = Alerts(store.database, courier=courier, pauses_s=(1.0,))
    alerts.note_breaker("big", "open")
    await alerts.tell()
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            await alerts.deliver()
        clock.move(minutes=1)
    await alerts.deliver()
    ((alert,), _) = await alerts.page()
    assert (len(courier.sent), alert.delivery) == (2, "failed")


async def test_without_a_webhook_nothing_piles_up_for_one_that_comes_later(store: Store) -> None:
    alerts = Alerts(store.database)
    alerts.note_breaker("big", "open")
    await alerts.tell()
    courier = Courier()
    await Alerts(store.database, courier=courier).deliver()
    assert courier.sent == []


async def test_an_alert_is_unread_until_it_is_acknowledged_and_the_first_reader_stays(store: Store) -> None:
    alerts = Alerts(store.database)
    alerts.note_breaker("big", "open")
    await alerts.tell()
    ((alert,), _) = await alerts.page(unread=True)
    read = await alerts.acknowledge(alert.alert_id, "ann")
    assert (read.acknowledged_by, read.acknowledged_at is not None) == ("ann", True)
    assert (await alerts.acknowledge(alert.alert_id, "bob")).acknowledged_by == "ann"
    assert (await alerts.page(unread=True), await alerts.unread()) == (([], None), 0)
    assert len((await alerts.page())[0]) == 1
    for unknown in ("0" * 32, "", "a\x00b", "\ud800"):
        with pytest.raises(Missing):
            await alerts.acknowledge(unknown, "ann")


async def test_pages_neither_skip_nor_repeat(store: Store, clock: Clock) -> None:
    alerts = Alerts(store.database)
    for number in range(7):
        alerts.note_breaker(f"m{number}", "open")
        if number % 3 == 0:
            await alerts.tell()
            clock.move(seconds=1)
    seen: list[str] = []
    cursor: str | None = None
    await alerts.tell()
    while True:
        page, cursor = await alerts.page(limit=2, cursor=cursor)
        seen += [alert.subject for alert in page]
        if cursor is None:
            break
    assert sorted(seen) == [f"m{number}" for number in range(7)]
    assert {*seen[-1:]} == {"m0"}
    for wrong in ("x", "1-zz", "-1-" + "0" * 32, "9" * 40 + "-" + "0" * 32):
        with pytest.raises(Invalid):
            await alerts.page(cursor=wrong)
    with pytest.raises(Invalid):
        await alerts.page(limit=0)


@pytest.mark.parametrize(("spent", "limit"), [(0, 0), (5, 0), (0, 10)])
def test_nothing_spent_or_nothing_allowed_passes_no_mark(spent: int, limit: int) -> None:
    assert Marks((0.0, 0.5, 1.0)).passed(ACME, spent, limit) is None


def test_a_budget_that_was_raised_tells_its_shares_anew() -> None:
    marks = Marks(SHARES)
    assert [marks.passed(ACME, 30, 50), marks.passed(ACME, 30, 50), marks.passed(ACME, 31, 100)] == [0.5, None, None]
    assert marks.passed(ACME, 50, 100) == 0.5
