"""The watch of a running server: what it counts, whom it alerts, and what an operator can stop.

Opened before anything that spends, because the ledger and the desk report to it; told later whose calls there are.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from app.config.schema import AlertConfig
from app.outbound.signature import Secrets
from app.outbound.webhooks import Endpoint
from app.records import Payer
from app.services.alerts.alerts import Alerts
from app.services.alerts.webhook import Webhook
from app.services.database import Database
from app.services.gateway.gateway import ModelGateway
from app.services.quota.refusals import SwitchedOff
from app.services.switches.switches import Switch, Switches
from app.telemetry.late import LATE_S, LoopWatch
from app.telemetry.metrics import Metrics
from app.telemetry.recent import Recent
from graphs.errors import PilothouseError

log = logging.getLogger("pilothouse.alerts")

Stop = Callable[[Callable[[Payer], bool], PilothouseError], int]


class Watch:
    """Made by `open_watch`."""

    def __init__(self, switches: Switches, alerts: Alerts, metrics: Metrics, recent: Recent) -> None:
        self.switches, self.alerts, self.metrics, self.recent = switches, alerts, metrics, recent
        self.loop = LoopWatch(self._late)
        self.tasks: set[asyncio.Task[None]] = set()
        self._stops: list[Stop] = []
        self._stop_model: Callable[[str, PilothouseError], None] = lambda _model, _error: None
        switches.on_change(self._changed)

    def begin(self) -> None:
        """Watch how late the loop is. For a server that has started: loading its libraries holds the loop for seconds,
        and a notebook's cells hold it as they like."""
        self.tasks.add(asyncio.create_task(self.loop.keep(), name="loop watch"))

    def barred(self, payer: Payer) -> SwitchedOff | None:
        """Why nothing of this payer's may go on; None where it may."""
        switch = self.switches.off(payer)
        return None if switch is None else _error(switch)

    def stops(self, stop: Stop) -> None:
        """Have `stop` called with whose calls are to end, and with what error, when something is switched off."""
        self._stops.append(stop)

    def follow(self, gateway: ModelGateway) -> None:
        """Hear of every attempt, breaker and look into the caches, and be able to stop the calls of a model."""
        self._stop_model = gateway.recovery.stop
        self.metrics.know_models(gateway.router.targets)
        gateway.recovery.observe(self.metrics.attempt)
        gateway.recovery.observe(self.recent.hear)
        if gateway.cache is not None:
            gateway.cache.observe(self.metrics.looked)
        for name, target in gateway.router.targets.items():
            target.breaker.on_change = partial(self._broke, name)

    def _broke(self, name: str, state: str, cause: str) -> None:
        self.alerts.note_breaker(name, "disabled" if state == "open" and cause == "credential" else state)

    def _changed(self, switch: Switch, is_off: bool) -> None:
        if not is_off:
            return
        if switch.kind == "model":
            self._stop_model(switch.name, _error(switch))
            return
        for stop in self._stops:
            stop(partial(_is_meant, switch), _error(switch))

    def _late(self, late_s: float) -> None:
        self.metrics.late(late_s)
        if late_s >= LATE_S:
            self.alerts.note_late_loop(f"{socket.gethostname()} {os.getpid()}", late_s)


@asynccontextmanager
async def open_watch(database: Database, config: AlertConfig) -> AsyncIterator[Watch]:
    """Look at the switches and keep looking; tell what is noticed.

    Raises Invalid for a webhook that is no URL or has no usable secret, StoreUnavailable.
    """
    alerts = Alerts(database, shares=config.budget_shares, courier=_webhook(config))
    watch = Watch(Switches(database), alerts, Metrics(), Recent(now=database.clock))
    await watch.switches.refresh()
    watch.tasks |= {
        asyncio.create_task(watch.switches.keep(), name="switches"),
        asyncio.create_task(alerts.keep(), name="alerts"),
    }
    try:
        yield watch
    finally:
        for task in watch.tasks:
            task.cancel()
        await asyncio.wait(watch.tasks)
        try:
            await alerts.tell()
        except PilothouseError:
            log.exception("the last alerts could not be written down")


def _webhook(config: AlertConfig) -> Webhook | None:
    if config.webhook_url_env is None:
        return None
    secret = config.webhook_secret_env
    secrets = Secrets() if secret is None else Secrets.read(os.environ.get(secret, ""))
    return Webhook(Endpoint.of(os.environ.get(config.webhook_url_env, ""), secrets))


def _is_meant(switch: Switch, payer: Payer) -> bool:
    """Whether a request is to end where a tenant or a key is switched off."""
    return switch.name == (payer.tenant_id if switch.kind == "tenant" else payer.key_id)


def _error(switch: Switch) -> SwitchedOff:
    return SwitchedOff.by(switch.kind, switch.name, switch.reason)
