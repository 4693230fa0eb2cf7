"""The health of the server as the console shows it: figures with a word for each, models with the worst first."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.console.figures import counted
from app.console.view import duration
from app.health import Health, TargetHealth
from app.records import Principal
from app.services.store.records import KeyRecord

LATE_MS: Final = 250.0  # an event loop that was later than this kept everybody waiting


@dataclass(frozen=True, slots=True)
class Vital:
    """`tone` is ok, warn or quiet; `word` says the same without colour."""

    name: str
    figure: str
    word: str
    tone: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model's row. `icon`, `pill` and `word` say its state three times over: shape, colour, text."""

    name: str
    provider: str
    icon: str
    pill: str
    word: str
    wait_s: float
    p95_ms: float | None
    error_rate: float
    told: str
    target: TargetHealth


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that can be switched off; `value` is kind and name."""

    value: str
    text: str


def vitals(who: Principal, found: Health, places: int) -> list[Vital]:
    """What a glance should know. `places` is how many calls may run at once."""
    resting = [target for target in found.targets if target.breaker != "closed" or target.switched_off]
    models = Vital(
        "Models",
        f"{len(found.targets) - len(resting)} of {len(found.targets)}",
        ", ".join(target.name for target in resting) + " out" if resting else "all serve",
        "warn" if resting else "ok",
    )
    queue = found.queue
    running = Vital(
        "Running now",
        f"{queue.running:,}",
        f"of {places:,} places" if who.is_owner else "calls of your tenant",
        "warn" if who.is_owner and queue.running >= places else "ok",
    )
    waiting = Vital(
        "Waiting",
        f"{queue.waiting:,}",
        "for a place" if queue.waiting else "nobody waits",
        "warn" if queue.waiting else "ok",
    )
    return [models, running, waiting, *(_books(found) if who.is_owner else ())]


def _books(found: Health) -> list[Vital]:
    backlog, late = found.trace_backlog, found.loop_lag_ms >= LATE_MS
    return [
        Vital(
            "Ledger",
            f"{found.commits_waiting:,}",
            "commits wait" if found.commits_waiting else "all is on disk",
            "quiet" if found.commits_waiting else "ok",
        ),
        Vital(
            "Traces",
            "?" if backlog is None else f"{backlog:,}",
            "the store does not answer" if backlog is None else "to be exported" if backlog else "all exported",
            "warn" if backlog is None else "quiet" if backlog else "ok",
        ),
        Vital(
            "Event loop",
            duration(found.loop_lag_ms),
            f"late at most, in {found.window_s // 60} min",
            "warn" if late else "ok",
        ),
    ]


def models(who: Principal, found: Health) -> list[Model]:
    """Those in trouble first, then by name."""
    made = [_model(who, target) for target in found.targets]
    return sorted(made, key=lambda model: (model.pill == "completed", model.name))


def _model(who: Principal, target: TargetHealth) -> Model:
    if target.switched_off:
        icon, pill, word = "power", "failed", "switched off"
    elif target.breaker == "open":
        icon, pill, word = "cross", "failed", "open"
    elif target.breaker == "half_open":
        icon, pill, word = "half", "waiting", "half-open, probing"
    elif target.retry_in_s:
        icon, pill, word = "half", "waiting", "cooling down"
    else:
        icon, pill, word = "tick", "completed", "closed"
    rate = target.failures / target.calls if target.calls else 0.0
    # How many calls there are tells how busy others are; a rate does not.
    told = f"{target.failures:,} of {counted(target.calls, 'call')}" if who.is_owner and target.calls else ""
    return Model(
        name=target.name,
        provider=target.provider,
        icon=icon,
        pill=pill,
        word=word,
        wait_s=target.retry_in_s,
        p95_ms=target.p95_ms,
        error_rate=rate,
        told=told,
        target=target,
    )


def choices(found: Health, keys: Iterable[KeyRecord], named: Iterable[str]) -> dict[str, list[Choice]]:
    """What can be switched off, by kind; `named` are tenants that the configuration knows."""
    off = {(switch.kind, switch.name) for switch in found.switches}
    live = [key for key in keys if key.revoked_at is None]
    tenants = sorted({key.tenant_id for key in live} | {load.tenant_id for load in found.queue.tenants} | set(named))
    return {
        "Models": [Choice(f"model:{item.name}", item.name) for item in found.targets if not item.switched_off],
        "Tenants": [Choice(f"tenant:{name}", name) for name in tenants if ("tenant", name) not in off],
        "Keys": [
            Choice(f"key:{key.key_id}", f"{key.name or 'unnamed'} · {key.tenant_id}/{key.user_id} · {key.key_id[:8]}")
            for key in live
            if ("key", key.key_id) not in off
        ],
    }
