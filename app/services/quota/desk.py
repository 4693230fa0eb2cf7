"""Where a caller asks first: may it come in, with which models, and who pays.

A request is admitted once (kill switches, requests a minute, a place) and each attempt at a model call reserves tokens
and money. A caller that no limit bounds costs one dictionary look-up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.config.schema import Degrade
from app.records import Bill, Charge, Payer
from app.services.quota.allowances import Allowances, Caller, Rate, highest
from app.services.quota.ledger import Budget, Hold, Ledger
from app.services.quota.places import Place, Places
from app.services.quota.refusals import NO_HEADERS, RateLimited, SwitchedOff
from app.services.quota.window import WINDOW_S, Taken, Use, Windows


class Switches(Protocol):
    """What operators have switched off."""

    @property
    def models_off(self) -> frozenset[str]: ...

    def off(self, payer: Payer) -> "Off | None":
        """The switch that keeps this payer from calling; None where there is none."""
        ...

    def model_off(self, model: str) -> "Off | None":
        """The switch that keeps everybody from this model; None where there is none."""
        ...


class Off(Protocol):
    """A switch that is off."""

    @property
    def kind(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def reason(self) -> str: ...


class NoSwitches:
    """Nothing is off."""

    models_off: frozenset[str] = frozenset()

    def off(self, payer: Payer) -> Off | None:
        return None

    def model_off(self, model: str) -> Off | None:
        return None


class QuotaDesk:
    """The desk of a process. `all_models` are the names of all that can be called, known once the gateway is open."""

    def __init__(
        self,
        allowances: Allowances,
        ledger: Ledger,
        windows: Windows,
        places: Places,
        *,
        switches: Switches | None = None,
    ) -> None:
        self._allowances, self._ledger = allowances, ledger
        self._windows, self.places = windows, places
        self.all_models: frozenset[str] = frozenset()
        self._switches: Switches = switches or NoSwitches()

    async def admit(self, payer: Payer) -> "Ticket":
        """Let a request in. Raises SwitchedOff, RateLimited, QueueFull."""
        self._check_switches(payer)
        caller = self._allowances.of(payer)
        headers = NO_HEADERS
        if caller.requests or caller.tokens:
            taken = await self._windows.take(_uses(caller, requests=1))
            headers = _headers(caller, taken)
            if taken.refused is not None:
                raise RateLimited(
                    f"the {caller.requests[taken.refused].told} are used up for this minute",
                    retry_after_s=taken.wait_s,
                    headers=headers,
                )
        return Ticket(await self.places.enter(payer.tenant_id, caller.rooms), headers)

    def allowed(self, payer: Payer) -> frozenset[str] | None:
        listed, off = self._allowances.of(payer).models, self._switches.models_off
        if not off:
            return listed
        return (self.all_models if listed is None else listed) - off

    def barred(self, payer: Payer, models: Sequence[str]) -> SwitchedOff | None:
        """Why none of `models` serves the payer: all that its list names of them are switched off. Else None."""
        listed = self._allowances.of(payer).models
        switches = [self._switches.model_off(name) for name in models if listed is None or name in listed]
        first = switches[0] if switches and all(switches) else None
        return None if first is None else _refusal(first)

    async def rung(self, payer: Payer) -> Degrade | None:
        """The step that applies now: of several ladders' the one that lies highest."""
        caller = self._allowances.of(payer)
        return highest([ladder.step_at(await self._share(ladder.budget)) for ladder in caller.ladders])

    def last_rung(self, payer: Payer) -> Degrade | None:
        """The step that applies to a call which the budget cannot cover, whatever its share."""
        return highest(ladder.step_at(1.0) for ladder in self._allowances.of(payer).ladders)

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> "DeskHold | Hold":
        """Set tokens and money aside. Raises SwitchedOff, RateLimited, QuotaExhausted, LedgerUnavailable."""
        self._check_switches(payer)
        if (switch := self._switches.model_off(charge.model)) is not None:
            raise _refusal(switch)
        caller = self._allowances.of(payer)
        slot: int | None = None
        if caller.tokens:
            slot = await self._take_tokens(caller, tokens)
        try:
            # What costs nothing needs no budget, and is what an exhausted one falls back on.
            hold = await self._ledger.reserve(charge, caller.budgets if charge.wanted_micros else ())
        except BaseException:
            if slot is not None:
                await self._windows.correct([rate.key for rate in caller.tokens], slot, -tokens)
            raise
        return hold if slot is None else DeskHold(hold, self._windows, caller.tokens, slot, tokens)

    @property
    def commits_waiting(self) -> int:
        """Pieces of the ledger's work that no transaction has taken up yet."""
        return self._ledger.commits_waiting

    async def standings(self, tenant_id: str) -> list[tuple[str, str, int, int]]:
        """The named budgets of a tenant: kind, name, spent and limit in micros."""
        found: list[tuple[str, str, int, int]] = []
        for budget in self._allowances.budgets_of(tenant_id):
            spent, limit = await self._ledger.standing(budget)
            found.append((budget.scope.kind, budget.scope.name or tenant_id, spent, limit))
        return found

    async def _share(self, budget: Budget) -> float:
        spent, limit = await self._ledger.standing(budget)
        return spent / limit if limit else 1.0

    async def _take_tokens(self, caller: Caller, tokens: int) -> int:
        taken = await self._windows.take(_uses(caller, tokens=tokens))
        if taken.refused is not None:
            rate = _rates(caller)[taken.refused]
            raise RateLimited(
                f"the {rate.told} are used up for this minute: {tokens} are needed of {rate.limit}",
                retry_after_s=taken.wait_s,
                headers=_headers(caller, taken),
            )
        return taken.slot

    def _check_switches(self, payer: Payer) -> None:
        if (switch := self._switches.off(payer)) is not None:
            raise _refusal(switch)


def _refusal(switch: Off) -> SwitchedOff:
    return SwitchedOff.by(switch.kind, switch.name, switch.reason)


@dataclass(slots=True)
class Ticket:
    """An admitted request, with the headers that tell the caller how it stands."""

    _place: Place
    headers: Mapping[str, str]

    def release(self) -> None:
        self._place.leave()


class DeskHold:
    """A reserved call whose tokens count against a rate: settling also puts that count right."""

    def __init__(self, hold: Hold, windows: Windows, rates: Sequence[Rate], slot: int, tokens: int) -> None:
        self._hold, self._windows, self._rates = hold, windows, rates
        self._slot, self._tokens = slot, tokens
        self._settled = False

    @property
    def granted_micros(self) -> int | None:
        return self._hold.granted_micros

    async def recorded(self) -> None:
        await self._hold.recorded()

    async def settle(self, bill: Bill) -> None:
        if not self._settled:
            self._settled = True
            used = bill.usage.input_tokens + bill.usage.output_tokens
            await self._windows.correct([rate.key for rate in self._rates], self._slot, used - self._tokens)
        await self._hold.settle(bill)


def _rates(caller: Caller) -> tuple[Rate, ...]:
    return caller.requests + caller.tokens


def _uses(caller: Caller, *, requests: int = 0, tokens: int = 0) -> list[Use]:
    """What is used of each rate of the caller; the others are looked at, for the headers."""
    used = [Use(rate.key, rate.limit, requests) for rate in caller.requests]
    return used + [Use(rate.key, rate.limit, tokens) for rate in caller.tokens]


def _headers(caller: Caller, taken: Taken) -> dict[str, str]:
    """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) of all limits, and the three older ones
    that clients still read: of the limit that refused, else of the tightest on requests."""
    rates = _rates(caller)
    resets = [str(-int(-reset_s // 1)) for reset_s in taken.resets_s]
    policies = [f'"{_named(rate)}";q={rate.limit};w={int(WINDOW_S)}' for rate in rates]
    states = [
        f'"{_named(rate)}";r={left}' + (f";t={reset}" if reset != "0" else "")
        for rate, left, reset in zip(rates, taken.left, resets, strict=True)
    ]
    told = taken.refused
    if told is None:
        alike = range(len(caller.requests)) if caller.requests else range(len(rates))
        told = min(alike, key=lambda place: (taken.left[place], rates[place].limit))
    return {
        "ratelimit-policy": ", ".join(policies),
        "ratelimit": ", ".join(states),
        "ratelimit-limit": str(rates[told].limit),
        "ratelimit-remaining": str(taken.left[told]),
        "ratelimit-reset": resets[told],
    }


def _named(rate: Rate) -> str:
    """The policy's name: what is counted and of whom, without whose."""
    what, _, whose = rate.told.partition(" of the ")
    return f"{whose}-{what}"
