"""The Health tab: models and their breakers, the queue, what waits, alerts, and the switches an owner can throw."""

from typing import Any, Final

import gradio as gr

from app.config.schema import EVERYONE
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.health_view import choices, models, vitals
from app.console.panel import EMPTY, panel, said
from app.console.reader import principal_of
from app.console.view import draw
from app.health import health, seen_by
from app.records import Payer, Principal
from app.services.alerts.shelf import Alert
from app.services.switches.switches import KINDS, SwitchKind
from app.workbench import Workbench
from graphs.errors import Forbidden, Invalid, PilothouseError

REFRESH_S: Final = 3.0
UNREAD_SHOWN: Final = 20
READ_SHOWN: Final = 5


class HealthTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Column(elem_id="health", min_width=0):
            with gr.Row(elem_id="health-board", elem_classes="board"):
                self.vitals = panel(elem_id="vitals")
                with gr.Column(elem_classes="main", min_width=0):
                    self.models = panel(acts=("ask", "restore"), elem_id="models")
                    self.queue = panel(elem_id="queue")
                with gr.Column(elem_classes="side", min_width=0):
                    self.alerts = panel(acts=("acknowledge",), elem_id="alerts")
                    self.switches = panel(acts=("ask", "restore"), elem_id="switches")
            self.sheet = panel(acts=("throw", "cancel"), elem_id="sheet")
        self.timer = gr.Timer(REFRESH_S, active=False)

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        self.timer.tick(self.listed, None, self.page, **PRIVATE)
        for shown in (self.models, self.switches):
            shown.ask(self._ask, None, [self.sheet], **PRIVATE)
            shown.restore(self._restore, None, self.page, **PRIVATE)
        self.alerts.acknowledge(self._acknowledge, None, self.page, **PRIVATE)
        self.sheet.throw(self._throw, None, [self.sheet, *self.page], **PRIVATE)
        self.sheet.cancel(lambda: EMPTY, None, [self.sheet], **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` may update."""
        return [self.vitals, self.models, self.queue, self.alerts, self.switches]

    async def listed(self, request: gr.Request) -> Update:
        """Everything as it is now."""
        return await self._drawn(principal_of(request))

    async def _drawn(self, who: Principal, notice: Advice | None = None) -> Update:
        bench = self._bench
        found = seen_by(who, await health(bench), bench.desk.allowed(Payer(who.tenant_id, who.user_id, who.key_id)))
        alerts: list[Alert] = []
        names: dict[str, str] = {}
        try:
            alerts = await self._alerts() if who.is_owner else []
            if any(switch.kind == "key" for switch in found.switches):
                keys = await bench.store.keys.list(None)
                names = {key.key_id: f"{key.name} ({key.tenant_id}/{key.user_id})" for key in keys if key.name}
        except PilothouseError as error:
            notice = notice or advice_on(error)
        owner = who.is_owner
        places = bench.config.limits.concurrent_runs
        return {
            self.vitals: draw("vitals", vitals=vitals(who, found, places), notice=notice, well=found.well, owner=owner),
            self.models: draw("models", models=models(who, found), window_s=found.window_s, owner=owner),
            self.queue: draw("queue", queue=found.queue, places=places, owner=owner),
            self.alerts: draw("alerts", alerts=alerts, unread=found.unread_alerts) if owner else EMPTY,
            self.switches: draw("switches", switches=found.switches, names=names) if owner else EMPTY,
        }

    async def _alerts(self) -> list[Alert]:
        """The unread, newest first, then the last that were read."""
        unread, _ = await self._bench.watch.alerts.page(unread=True, limit=UNREAD_SHOWN)
        latest, _ = await self._bench.watch.alerts.page(limit=UNREAD_SHOWN)
        return [*unread, *[alert for alert in latest if alert.acknowledged_at is not None][:READ_SHOWN]]

    async def _acknowledge(self, event: gr.EventData, request: gr.Request) -> Update:
        who = principal_of(request)
        try:
            _check_owner(who)
            await self._bench.watch.alerts.acknowledge(said(event, "alert"), str(who.actor))
        except PilothouseError as error:
            return await self._drawn(who, advice_on(error))
        return await self._drawn(who)

    # Switches

    async def _ask(self, event: gr.EventData, request: gr.Request) -> Update:
        who = principal_of(request)
        if not who.is_owner:
            return {self.sheet: EMPTY}
        return {self.sheet: await self._asking(said(event, "what"))}

    async def _asking(self, chosen: str, reason: str = "", notice: Advice | None = None) -> Any:
        found = await health(self._bench)
        keys = await self._bench.store.keys.list(None)
        tenants = [name for name in self._bench.config.tenants if name != EVERYONE]
        return draw("switching", groups=choices(found, keys, tenants), chosen=chosen, reason=reason, notice=notice)

    async def _throw(self, event: gr.EventData, request: gr.Request) -> Update:
        who, what, reason = principal_of(request), said(event, "what"), said(event, "reason").strip()
        try:
            _check_owner(who)
            kind, name = _parted(what)
            if not reason:
                raise Invalid("a reason is needed: those who are stopped will ask", field="reason")
            await self._bench.watch.switches.turn_off(kind, name, reason, who.actor)
        except PilothouseError as error:
            return {self.sheet: await self._asking(what, reason, advice_on(error)) if who.is_owner else EMPTY}
        return {self.sheet: EMPTY, **await self._drawn(who)}

    async def _restore(self, event: gr.EventData, request: gr.Request) -> Update:
        who = principal_of(request)
        try:
            _check_owner(who)
            await self._bench.watch.switches.turn_on(*_parted(said(event, "what")), who.actor)
        except PilothouseError as error:
            return await self._drawn(who, advice_on(error))
        return await self._drawn(who)


def _check_owner(who: Principal) -> None:
    if not who.is_owner:
        raise Forbidden("only the owner may do this")


def _parted(what: str) -> tuple[SwitchKind, str]:
    """`model:big` as kind and name. Raises Invalid."""
    kind, _, name = what.partition(":")
    known = next((each for each in KINDS if each == kind), None)
    if known is None or not name:
        raise Invalid("choose what to switch off", field="what")
    return known, name
