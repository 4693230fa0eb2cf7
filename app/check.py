"""What `pilothouse config check` says of a configuration file: who may use what, and whether its examples hold.

Nothing is opened and nobody is called. Models are known by their names, windows and prices alone; the allowances, the
ladder and the router are the ones that serve.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.config.load import EMBEDDED
from app.config.price import FREE, PICOS_PER_MICRO, Price, usd_to_micros
from app.config.schema import EVERYONE, Allowance, Config, Degrade, Example
from app.config.tools import ToolGrant, spaced
from app.models import PLAIN, price_of
from app.records import Payer
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.meter import EXTRACTIVE, told
from app.services.gateway.routes import Need, Router, Target
from app.services.gateway.scripted import ScriptedProvider
from app.services.quota.allowances import Allowances, Caller, highest
from app.services.tools.bounded import raised
from app.services.tools.builtins import BUILTINS, grants
from graphs.errors import PilothouseError, QuotaExhausted
from graphs.types import ModelInfo, Risk

EMBEDDED_WINDOW: Final = 4_096
EMBEDDED_ANSWER: Final = 1_024


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of who may use what. `who` is a tenant, or a user, feature or key inside it."""

    who: str
    models: tuple[str, ...]
    limits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An example and what it found; `faults` is empty where it holds."""

    number: int
    asked: str
    found: str
    faults: tuple[str, ...]


def models(config: Config) -> list[tuple[str, str, str]]:
    """Each model's name, what it costs in and out in USD a million tokens, and where the price is from.

    Raises ConfigInvalid for a price that nobody knows.
    """
    found = []
    for name, model in config.models.items():
        price = price_of(config, name, model)
        found.append((name, f"{_usd(price.input_picos)} / {_usd(price.output_picos)}", price.source))
    return found


def entries(config: Config) -> list[Entry]:
    """Everybody that the file names, and what holds for everybody else."""
    everything = sorted({*config.models, *EMBEDDED})
    found: list[Entry] = []
    for tenant_id, tenant in config.tenants.items():
        found.append(_entry(config, f"tenant {tenant_id}", tenant, everything))
        for group in ("users", "features", "keys"):
            for name, allowance in getattr(tenant, group).items():
                found.append(_entry(config, f"  {group.removesuffix('s')} {name}", allowance, everything))
    if EVERYONE not in config.tenants:
        found.append(Entry("any other tenant", tuple(everything), ("no limits",)))
    return found


def _entry(config: Config, who: str, item: Allowance, everything: list[str]) -> Entry:
    named = everything
    if item.models is not None:
        named = sorted({model for name in item.models for model in config.model_names(name)})
    limits = [
        f"{item.budget_usd_month} USD a month" if item.budget_usd_month is not None else "",
        f"{item.requests_per_minute} requests a minute" if item.requests_per_minute is not None else "",
        f"{item.tokens_per_minute} tokens a minute" if item.tokens_per_minute is not None else "",
        f"{item.concurrent_runs} at once" if item.concurrent_runs is not None else "",
        *(told(step) for step in item.degrade),
    ]
    return Entry(who, tuple(named), tuple(filter(None, limits)) or ("no limits",))


def tools(config: Config) -> list[tuple[str, str, str, str]]:
    """Each tool that somebody may be offered: its name, its least risk, for whom it is, and within what.

    Whether its definition is accepted says `pilothouse tools list`, which asks the servers.
    """
    builtins, named = grants(config.tools), config.tools.items()
    found: list[tuple[str, Risk, ToolGrant]] = [
        (name, raised(BUILTINS[name].spec, grant.risk).risk, grant) for name, grant in builtins.items()
    ]
    found += [(name, tool.risk or "read", tool) for name, tool in named if tool.kind == "langchain"]
    found += [
        (spaced(server, name), tool.risk, tool)
        for server, part in config.mcp_servers.items()
        for name, tool in part.tools.items()
    ]
    return [(name, risk, _who_may(grant), _within(grant)) for name, risk, grant in found if grant.enabled]


def _who_may(grant: ToolGrant) -> str:
    who = "every tenant" if grant.tenants is None else ", ".join(grant.tenants) or "nobody"
    return f"{who}; keys for {grant.scope}"


def _within(grant: ToolGrant) -> str:
    return f"{grant.timeout_s:g} s, {grant.max_output_chars:,} characters, {grant.max_concurrent} at once"


def notes(config: Config) -> list[str]:
    """What holds and may surprise."""
    return [
        f"route {name} takes only models that evals have measured at {route.min_quality:g} or better at the task"
        for name, route in config.routes.items()
        if route.min_quality is not None
    ]


def run_examples(config: Config) -> list[Verdict]:
    """Route each example as its caller's call would be, with nothing known yet of any model's health."""
    if not config.examples:
        return []
    router, allowances = _router(config), Allowances(config, config.model_names)
    return [_run(number, example, router, allowances) for number, example in enumerate(config.examples, 1)]


def _router(config: Config) -> Router:
    targets = {name: _target(name, FREE, EMBEDDED_WINDOW, EMBEDDED_ANSWER) for name in EMBEDDED}
    for name, model in config.models.items():
        most = model.max_output_tokens or model.context_tokens // 4
        targets[name] = _target(name, price_of(config, name, model), model.context_tokens, most)
    chat = [name for name, model in config.models.items() if model.kind == "chat"]
    default = "default" if "default" in config.routes else (chat[0] if chat else sorted(EMBEDDED)[-1])
    return Router(targets, config.routes, members=config.model_names, by_task={}, default=default, plain=PLAIN)


def _target(name: str, price: Price, window: int, most: int) -> Target:
    info = ModelInfo(name, "", "planned", window, most, native_tools=True, extractive=name == EXTRACTIVE)
    return Target(name, ScriptedProvider((), info), price, Breaker(BreakerPolicy()))


def _run(number: int, example: Example, router: Router, allowances: Allowances) -> Verdict:
    payer = Payer(example.tenant, example.user, example.key, example.feature)
    candidates: tuple[str, ...] = ()
    degraded = code = ""
    try:
        candidates, degraded = _route(example, router, allowances.of(payer))
    except PilothouseError as error:
        code = error.code
    asked = f"{example.tenant}/{example.user} asks {example.model} ({example.task})"
    found = code or f"{' > '.join(candidates)}{f' ({degraded})' if degraded else ''}"
    return Verdict(number, asked, found, tuple(_faults(example, candidates, degraded, code)))


def _route(example: Example, router: Router, caller: Caller) -> tuple[tuple[str, ...], str]:
    """The models that would be tried, and what the ladder changed. Raises as a call would."""
    step = _step(example, caller)
    asked = None if example.model == "default" and "default" not in router.routes else example.model
    name = router.name_for(asked, example.task)
    route = None if step is None else router.led_to(step.route, example.task)
    if step is not None:
        if step.answer == EXTRACTIVE and example.task == "rag":
            return (EXTRACTIVE,), told(step)
        if step.answer is not None:
            raise QuotaExhausted("the month's budget is used up")
        name = route or name
    plan = router.plan(name, Need(example.task, example.input_tokens, 0, caller.models))
    spent = usd_to_micros(example.spent_usd)
    affordable = [
        target.name
        for target in plan.targets
        if all(spent + target.price.worst_micros(example.input_tokens, 1) <= one.limit_micros for one in caller.budgets)
        or target.price == FREE
    ]
    if not affordable:
        raise QuotaExhausted("the budget covers none of them")
    return tuple(affordable), "" if step is None else told(step, route_taken=route == step.route)


def _step(example: Example, caller: Caller) -> Degrade | None:
    spent = usd_to_micros(example.spent_usd)
    limits = [(ladder, ladder.budget.limit_micros) for ladder in caller.ladders]
    return highest(ladder.step_at(spent / limit if limit else 1.0) for ladder, limit in limits)


def _faults(example: Example, candidates: tuple[str, ...], degraded: str, code: str) -> Iterator[str]:
    expect = example.expect
    if expect.allowed is not None and expect.allowed != bool(candidates):
        yield f"allowed: {expect.allowed} was expected"
    if expect.model is not None and expect.model != next(iter(candidates), None):
        yield f"model: {expect.model} was expected"
    if expect.candidates is not None and expect.candidates != candidates:
        yield f"candidates: {' > '.join(expect.candidates)} was expected"
    if expect.degraded is not None and (expect.degraded not in degraded or not degraded):
        yield f"degraded: {expect.degraded!r} was expected"
    if expect.code is not None and expect.code != code:
        yield f"code: {expect.code} was expected"


def _usd(picos: int) -> str:
    return f"{picos / PICOS_PER_MICRO:g}"
