"""Which models may serve a call, and in which order: order, cost, latency or quality, with the reasons.

A plan is made once for each call and is a value: prices and limits in it stay as they were at admission.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from app.config.price import FREE, Price
from app.config.schema import CacheConfig, RouteConfig
from app.services.breaker import Breaker
from app.services.gateway.latency import Latency
from app.services.gateway.provider import Embeds, Provider, Reranks
from graphs.errors import Forbidden, Invalid, Missing, PromptTooLong, UpstreamError
from graphs.types import ModelInfo, Task

UNMEASURED_MS: Final = 0.0  # a model nobody has called yet is tried before a slow one
UNASKED_OUTPUT_TOKENS: Final = 256  # what an answer is taken to have, to compare costs, where the caller does not say
# Tokens are counted too high, in the mean 1.7 times (tokens.py): a prompt beyond a window by less may still fit.
COUNTED_TOO_HIGH: Final = 2
MAX_STEADY: Final = 4_096


Does = Literal["answers", "embeds", "re-ranks"]
"""What a model is for; a call of one sort never reaches a model of another."""


class NoModelFits(UpstreamError):
    """Every candidate of the route is ruled out for this call; the message says by what."""

    code = "no_model_fits"


@dataclass(slots=True)
class Target:
    """A model that can be called: its provider, price, and what is known of its health."""

    name: str
    provider: Provider
    price: Price
    breaker: Breaker
    latency: Latency = field(default_factory=Latency)
    provider_name: str = ""

    @property
    def info(self) -> ModelInfo:
        return self.provider.info


@dataclass(frozen=True, slots=True)
class Plan:
    """How one call will be tried. `reasons` say in words why the first is first and who was left out."""

    route: str
    targets: tuple[Target, ...]
    config: RouteConfig
    reasons: tuple[str, ...]

    @property
    def cache(self) -> CacheConfig:
        return self.config.cache


@dataclass(frozen=True, slots=True)
class Need:
    """What a call asks of a model."""

    task: Task
    prompt_tokens: int = 0
    output_tokens: int = 0
    allowed: frozenset[str] | None = None


class Router:
    """Routes by name. A model's name is a route of that model alone."""

    def __init__(
        self,
        targets: Mapping[str, Target],
        routes: Mapping[str, RouteConfig],
        *,
        members: Callable[[str], Sequence[str]],
        by_task: Mapping[Task, str],
        default: str,
        plain: RouteConfig | None = None,
        quality: Callable[[str, Task], float | None] = lambda _model, _task: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`members` resolves a route to its models in the order of its candidates; `by_task` overrides `default`.

        `plain` is the route of a model that is named itself.
        """
        self.targets, self.routes = dict(targets), dict(routes)
        self._members, self._by_task, self._default, self._quality = members, dict(by_task), default, quality
        # Asked once: isinstance of a protocol takes 10 us.
        self._does = {name: _does(target.provider) for name, target in targets.items()}
        self._plain = plain or RouteConfig(candidates=("x",))
        self._alone: dict[str, RouteConfig] = {}
        self._monotonic = monotonic
        self._groups: dict[str, tuple[Target, ...]] = {}
        self._steady: dict[tuple[str, Does, frozenset[str] | None], tuple[int, Plan]] = {}
        for name in {default, *self._by_task.values()}:
            self.route_of(name)

    def name_for(self, name: str | None, task: Task) -> str:
        """The route or model that serves a call which names `name`."""
        return name or self._by_task.get(task, self._default)

    def route_of(self, name: str) -> RouteConfig:
        """Raises Missing."""
        if (route := self.routes.get(name)) is not None:
            return route
        if name in self.targets:
            if name not in self._alone:
                self._alone[name] = self._plain.model_copy(update={"candidates": (name,)})
            return self._alone[name]
        raise Missing(f"there is no model or route named {name!r}", field="model")

    def models_of(self, name: str) -> tuple[Target, ...]:
        """The models of a route in the order of its candidates. Raises Missing."""
        if (group := self._groups.get(name)) is None:
            self.route_of(name)
            names = self._members(name) if name in self.routes else (name,)
            group = self._groups[name] = tuple(self.targets[member] for member in names)
        return group

    def reranks(self, name: str) -> bool:
        """Whether that is a re-rank model, or a route of such."""
        known = name in self.routes or name in self.targets
        return known and all(self._does[target.name] == "re-ranks" for target in self.models_of(name))

    def plan(self, name: str, need: Need) -> Plan:
        """Raises Missing, Forbidden (the payer may use none of them), PromptTooLong, NoModelFits; Invalid where a model
        of one sort should do the work of another."""
        wanted = _wanted(need.task)
        steady = self._steady.get((name, wanted, need.allowed))
        if steady is not None and need.prompt_tokens + need.output_tokens <= steady[0]:
            return steady[1]
        config = self.route_of(name)
        candidates = self.models_of(name)
        for target in candidates:
            if (does := self._does[target.name]) != wanted:
                raise Invalid(f"{name} {_DOES[does]}{_CANNOT[wanted]}", field="model")
        reasons: list[str] = []
        allowed = [target for target in candidates if need.allowed is None or target.name in need.allowed]
        if not allowed:
            raise Forbidden(f"this caller may not use {name}", field="model")
        large = self._large_enough(allowed, need, reasons)
        good = self._good_enough(large, need, config, reasons)
        plan = Plan(name, tuple(self._ordered(good, need, config, reasons)), config, tuple(reasons))
        if config.policy == "order" and config.min_quality is None and large is allowed:
            self._keep(plan, need, min(target.info.context_tokens for target in allowed))
        return plan

    def _keep(self, plan: Plan, need: Need, window: int) -> None:
        """Keep a plan that holds for every call of these callers which fits into the smallest window."""
        if len(self._steady) >= MAX_STEADY:
            self._steady.clear()
        self._steady[plan.route, _wanted(need.task), need.allowed] = window, plan

    def _large_enough(self, targets: list[Target], need: Need, reasons: list[str]) -> list[Target]:
        """Those whose window holds prompt and answer; where none surely does, those that may hold the prompt."""
        tokens = need.prompt_tokens + need.output_tokens
        large = [target for target in targets if target.info.context_tokens >= tokens]
        if len(large) == len(targets):
            return targets
        if not large and _wanted(need.task) == "answers":
            least = need.prompt_tokens / COUNTED_TOO_HIGH
            large = [target for target in targets if target.info.context_tokens >= least]
        if not large:
            most = max(target.info.context_tokens for target in targets)
            raise PromptTooLong(
                f"the prompt has about {need.prompt_tokens} tokens; the largest window here has {most}",
                field="messages",
            )
        reasons += [f"{target.name}: window too small" for target in targets if target not in large]
        return large

    def led_to(self, name: str | None, task: Task) -> str | None:
        """The route of a ladder's step; None where it names none, or one of which no model was measured as good at the
        task as it demands. A ladder saves money; it may not end answers because nobody has measured cheaper models."""
        if name is None or (least := self.route_of(name).min_quality) is None:
            return name
        return name if any((self._quality(each.name, task) or 0.0) >= least for each in self.models_of(name)) else None

    def _good_enough(self, targets: list[Target], need: Need, config: RouteConfig, reasons: list[str]) -> list[Target]:
        if config.min_quality is None:
            return targets
        good: list[Target] = []
        for target in targets:
            score = self._quality(target.name, need.task)
            if score is not None and score >= config.min_quality:
                good.append(target)
            else:
                known = "was never measured" if score is None else f"scores {score:.2f}"
                reasons.append(f"{target.name}: {known} at {need.task}, {config.min_quality:g} is demanded")
        if not good:
            raise NoModelFits("no model of this route has the quality that it demands: " + "; ".join(reasons))
        return good

    def _ordered(self, targets: list[Target], need: Need, config: RouteConfig, reasons: list[str]) -> list[Target]:
        if len(targets) == 1:
            return targets
        if config.policy == "order":
            reasons.append("in the route's order: " + ", ".join(target.name for target in targets))
            return targets
        if config.policy == "cost":
            output = need.output_tokens or UNASKED_OUTPUT_TOKENS
            keys = {t.name: float(t.price.worst_micros(need.prompt_tokens, output)) for t in targets}
            unit = "micro-dollars at most"
        elif config.policy == "latency":
            now = self._monotonic()
            keys = {t.name: t.latency.expected_ms(now) or UNMEASURED_MS for t in targets}
            unit = "ms at the 95th percentile"
        else:
            keys = {t.name: -(self._quality(t.name, need.task) or 0.0) for t in targets}
            unit = f"at {need.task}"
        ordered = sorted(targets, key=lambda target: keys[target.name])
        reasons.append(f"by {config.policy}: " + ", ".join(f"{t.name} {abs(keys[t.name]):.6g} {unit}" for t in ordered))
        return ordered


_DOES: Final[Mapping[Does, str]] = {"answers": "", "embeds": "embeds texts and ", "re-ranks": "re-ranks texts and "}
_CANNOT: Final[Mapping[Does, str]] = {
    "answers": "does not answer",
    "embeds": "does not embed",
    "re-ranks": "does not re-rank",
}


def _does(provider: Provider) -> Does:
    if isinstance(provider, Embeds):
        return "embeds"
    return "re-ranks" if isinstance(provider, Reranks) else "answers"


def _wanted(task: Task) -> Does:
    if task == "embedding":
        return "embeds"
    return "re-ranks" if task == "rerank" else "answers"


__all__ = ["FREE", "Need", "NoModelFits", "Plan", "Router", "Target"]
