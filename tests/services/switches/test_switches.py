"""Kill switches: what is off is off in every process, at once here and within a second elsewhere."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from app.records import Actor, Payer
from app.services.audit import Trail
from app.services.store.database import StoreUnavailable
from app.services.store.store import Store
from app.services.switches import switches as module
from app.services.switches.switches import Switch, Switches
from graphs.errors import Invalid, Missing

OWNER, DEPUTY = Actor("default", "owner"), Actor("default", "deputy")
ANN, EVE = Payer("acme", "ann", "k1"), Payer("umbrella", "eve", "k3")

# Says when it sees that the tenant is off, and when that it is on again.
WATCHES = """
import asyncio, sys
from app.records import Payer
from app.services.store.store import Store
from app.services.switches.switches import Switches

async def main():
    store = await Store.open(sys.argv[1])
    switches = Switches(store.database)
    await switches.refresh()
    def told(switch, off):
        print(switch.name, off, switches.off(Payer("acme", "x")) is not None, flush=True)
    switches.on_change(told)
    print("watching", flush=True)
    await switches.keep()

asyncio.run(main())
"""


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(store_url)
    yield opened
    await opened.close()


@pytest.fixture
def switches(store: Store) -> Switches:
    return Switches(store.database)


async def test_a_tenant_a_key_and_a_model_are_off_until_they_are_on(switches: Switches) -> None:
    await switches.turn_off("tenant", "acme", "it loops", OWNER)
    await switches.turn_off("key", "k3", "", OWNER)
    await switches.turn_off("model", "big", "", OWNER)
    stopped = switches.off(ANN)
    assert stopped is not None
    assert (stopped.kind, stopped.name, stopped.reason, stopped.by) == ("tenant", "acme", "it loops", str(OWNER))
    assert switches.off(EVE) is not None
    assert switches.off(Payer("umbrella", "eve", "k4")) is None
    assert switches.models_off == {"big"}
    await switches.turn_on("tenant", "acme", OWNER)
    await switches.turn_on("model", "big", OWNER)
    assert switches.off(ANN) is None
    assert not switches.models_off
    assert [switch.name for switch in await switches.list()] == ["k3"]


async def test_a_key_is_not_taken_for_the_tenant_of_that_name(switches: Switches) -> None:
    await switches.turn_off("key", "acme", "", OWNER)
    await switches.turn_off("tenant", "k3", "", OWNER)
    await switches.turn_off("model", "umbrella", "", OWNER)
    assert switches.off(ANN) is None
    assert switches.off(EVE) is None


async def test_switching_off_again_tells_the_new_reason_and_nobody_twice(switches: Switches) -> None:
    heard: list[tuple[str, bool]] = []
    switches.on_change(lambda switch, off: heard.append((switch.name, off)))
    await switches.turn_off("tenant", "acme", "first", OWNER)
    await switches.turn_off("tenant", "acme", "second", DEPUTY)
    (only,) = await switches.list()
    assert (only.reason, only.by) == ("second", str(DEPUTY))
    await switches.turn_on("tenant", "acme", OWNER)
    assert heard == [("acme", True), ("acme", False)]


async def test_what_is_not_off_cannot_be_switched_on(switches: Switches) -> None:
    for name in ("acme", "a\x00b", "\ud800"):
        with pytest.raises(Missing):
            await switches.turn_on("tenant", name, OWNER)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("user", "ann", ""),
        ("tenant", "", ""),
        ("tenant", "a\x00b", ""),
        ("key", "x" * 513, ""),
        ("key", "k", "\x1b[2J"),
    ],
)
async def test_a_switch_that_cannot_be_is_refused(switches: Switches, kind: str, name: str, reason: str) -> None:
    with pytest.raises(Invalid):
        await switches.turn_off(kind, name, reason, OWNER)
    assert await switches.list() == []


async def test_another_process_sees_the_change_without_being_told(store_url: str, switches: Switches) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WATCHES, store_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"watching\n"
            await switches.turn_off("tenant", "acme", "", OWNER)
            assert await process.stdout.readline() == b"acme True True\n"
            await switches.turn_on("tenant", "acme", OWNER)
            assert await process.stdout.readline() == b"acme False False\n"
    finally:
        process.kill()
        await process.wait()
    assert module.REFRESH_S <= 1  # a running call has to stop within two seconds


async def test_while_the_database_is_away_the_last_view_holds(
    switches: Switches, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await switches.turn_off("tenant", "acme", "", OWNER)
    monkeypatch.setattr(module, "REFRESH_S", 0.01)
    away, looked = True, asyncio.Event()
    really = switches.list

    async def listed() -> list[Switch]:
        looked.set()
        if away:
            raise StoreUnavailable("the database does not answer")
        return await really()

    monkeypatch.setattr(switches, "list", listed)
    keeping = asyncio.create_task(switches.keep())
    async with asyncio.timeout(30):
        await looked.wait()
        assert switches.off(ANN) is not None
        assert "the last view holds" in caplog.text
        await Switches(store.database).turn_on("tenant", "acme", OWNER)
        away = False
        while switches.off(ANN) is not None:
            await asyncio.sleep(0.01)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def test_who_switched_what_is_in_the_audit_trail_and_its_entries_in_the_log(
    store: Store, switches: Switches, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pilothouse.audit"):
        await switches.turn_off("tenant", "acme", "it loops", OWNER)
        await switches.turn_on("tenant", "acme", DEPUTY)
        with pytest.raises(Missing):
            await switches.turn_on("tenant", "acme", DEPUTY)
    on, off = await Trail(store.database).latest("acme", 10)
    assert [(each.action, each.user_id, each.subject) for each in (off, on)] == [
        ("switch.off", "owner", "acme"),
        ("switch.on", "deputy", "acme"),
    ]
    assert [(line.message, vars(line)["digest"]) for line in caplog.records] == [
        ("switch.off", off.digest),
        ("switch.on", on.digest),
    ]
