"""Kill switches: a tenant, a key or a model that an operator has switched off.

The database holds what is off; every process keeps a view of it, asks nobody when a call comes in and looks again each
second. Whoever has calls in flight hears of a change and stops them. While the database is away the last view holds.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import delete, select

from app.records import Actor, Payer
from app.services.audit import audited
from app.services.database import Database, from_us, to_us
from app.services.switches.tables import switches
from graphs.errors import Invalid, Missing

log = logging.getLogger("pilothouse.switches")

REFRESH_S: Final = 1.0  # with the read, well inside the two seconds in which a running call has to stop
MAX_NAME_CHARS: Final = 512
MAX_REASON_CHARS: Final = 1_000

SwitchKind = Literal["tenant", "key", "model"]
KINDS: Final[tuple[SwitchKind, ...]] = ("tenant", "key", "model")


@dataclass(frozen=True, slots=True)
class Switch:
    """Something that is off, since when, why and by whom. A key is named by its id."""

    kind: SwitchKind
    name: str
    reason: str
    by: str
    created_at: datetime


Listener = Callable[[Switch, bool], None]


class Switches:
    """The switches of an installation, as this process sees them. The workbench runs `keep` behind it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._off: dict[tuple[str, str], Switch] = {}
        self._models_off: frozenset[str] = frozenset()
        self._listeners: list[Listener] = []

    def off(self, payer: Payer) -> Switch | None:
        """The switch that keeps this payer from calling; None where there is none."""
        return self._off.get(("tenant", payer.tenant_id)) or self._off.get(("key", payer.key_id))

    def model_off(self, model: str) -> Switch | None:
        """The switch that keeps everybody from this model; None where there is none."""
        return self._off.get(("model", model))

    @property
    def models_off(self) -> frozenset[str]:
        return self._models_off

    @property
    def seen(self) -> tuple[Switch, ...]:
        """What is off as this process last saw it, oldest first."""
        return tuple(self._off.values())

    def on_change(self, listener: Listener) -> None:
        """Have `listener` called on the loop with each switch that changes and whether it is off now."""
        self._listeners.append(listener)

    async def turn_off(self, kind: str, name: str, reason: str, by: Actor) -> Switch:
        """Off for every process within REFRESH_S, for this one at once; again replaces reason and time.

        Raises Invalid for a kind, name or reason that no switch can have.
        """
        known = _known(kind)
        _check(name, reason)
        now_us = to_us(self._database.clock())
        values = {"reason": reason, "actor": str(by), "created_us": now_us}
        row = self._database.insert(switches).values(kind=kind, name=name, **values)
        async with audited(self._database) as journal:
            await journal.connection.execute(row.on_conflict_do_update(index_elements=["kind", "name"], set_=values))
            await journal.note("switch.off", by, _whose(known, name), name, {"kind": kind})
        await self.refresh()
        return Switch(known, name, reason, str(by), from_us(now_us))

    async def turn_on(self, kind: str, name: str, by: Actor) -> None:
        """Let it call again. Raises Missing where it is not off."""
        gone = 0
        if kind in KINDS and name.isprintable():  # nothing else got in, and PostgreSQL could not even be asked for it
            async with audited(self._database) as journal:
                mine = (switches.c.kind == kind, switches.c.name == name)
                gone = (await journal.connection.execute(delete(switches).where(*mine))).rowcount
                if gone:
                    await journal.note("switch.on", by, _whose(kind, name), name, {"kind": kind})
        if not gone:
            raise Missing(f"this {kind} is not switched off")
        await self.refresh()

    async def refresh(self) -> None:
        """Look at the database and tell what has changed since the last look."""
        off: dict[tuple[str, str], Switch] = {(each.kind, each.name): each for each in await self.list()}
        before, self._off = self._off, off
        self._models_off = frozenset(name for kind, name in off if kind == "model")
        changes = [(switch, True) for place, switch in off.items() if place not in before]
        changes += [(switch, False) for place, switch in before.items() if place not in off]
        for switch, is_off in changes:
            log.info("a switch has changed", extra={"kind": switch.kind, "subject": switch.name, "off": is_off})
            for listener in self._listeners:
                listener(switch, is_off)

    async def keep(self) -> None:
        """For ever: keep the view fresh."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception:
                # The loop of a worker: a database that is away, or a listener that fails, must not end it.
                log.exception("the switches could not be read; the last view holds")

    # Last: from here on `list` is this method.
    async def list(self) -> list[Switch]:
        """What is off by the database, oldest first."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(switches).order_by(switches.c.created_us, switches.c.name))
            return [Switch(row.kind, row.name, row.reason, row.actor, from_us(row.created_us)) for row in rows]


def _known(kind: str) -> SwitchKind:
    for known in KINDS:
        if kind == known:
            return known
    raise Invalid(f"kind must be one of {', '.join(KINDS)}", field="kind")


def _whose(kind: str, name: str) -> str:
    return name if kind == "tenant" else ""


def _check(name: str, reason: str) -> None:
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise Invalid(f"name must be 1 to {MAX_NAME_CHARS} printable characters", field="name")
    if len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        raise Invalid(f"reason must be at most {MAX_REASON_CHARS} printable characters", field="reason")
