"""The one layer that retries: tries a plan's models until one answers, and books every attempt.

Works on the items of any wire; a call says how to open an attempt and how to read an item. Before the first item
leaves, the attempt is on disk; before the last one leaves, it is settled. Once something of an answer has left, nothing
is started again in silence: the error goes to the caller.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from app.records import Bill, Charge, Outcome, Payer
from app.services.gateway.breaker import RetryBudget
from app.services.gateway.ports import Desk, Hold
from app.services.gateway.routes import Plan, Target
from graphs.errors import (
    PilothouseError,
    QuotaExhausted,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)
from graphs.types import FinishReason, Task, Usage

T = TypeVar("T")

FIRST_BACKOFF_S: Final = 0.25
LONGEST_BACKOFF_S: Final = 8.0
LONGEST_WAIT_S: Final = 10.0  # a Retry-After beyond it is not waited for
SHORT_COOL_DOWN_S: Final = 1.0  # after a 429 that does not say how long
LEAST_ANSWER_TOKENS: Final = 64  # a budget that cannot pay for so many refuses the call


class AllUnavailable(UpstreamError):
    """No model of the route may be tried now: each rests after failures, or asked to be left alone."""

    code = "all_unavailable"


class BrokenOff(UpstreamError):
    """The model's answer broke off after a part of it had left."""

    code = "upstream_broke_off"


@dataclass(frozen=True, slots=True)
class Ended:
    """What the last item of an attempt says of the whole. `usage` None where the server did not say."""

    usage: Usage | None
    finish_reason: FinishReason = "unknown"
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt as it ended, for the run's record and the metrics."""

    payer: Payer
    target: Target
    route: str
    task: Task
    number: int
    streamed: bool
    bill: Bill
    finish_reason: FinishReason | None


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """What is to be called. Token counts are upper estimates; `output_tokens` None lets the model's own limit hold.

    `open` starts an attempt, with a cap on the answer's tokens where a budget asks for one. `read` says of an item
    whether it lets the client see output, its text, and what it ends with if it is the last. `count` counts the tokens
    of what a broken attempt had said.
    """

    payer: Payer
    plan: Plan
    task: Task
    streamed: bool
    prompt_tokens: int
    output_tokens: int | None
    open: Callable[[Target, int | None], AsyncGenerator[T, None]]
    read: Callable[[T], tuple[bool, str, Ended | None]]
    count: Callable[[Target, str], int]
    report: Callable[[Attempt], None] | None = None
    choices: int = 1


@dataclass(slots=True)
class _State:
    """How far one attempt has come."""

    ticket: int
    number: int
    started: float
    first: float | None = None
    said: bool = False
    texts: list[str] = field(default_factory=list)
    ended: Ended | None = None
    settled: bool = False


class Recovery:
    """Tries, waits, falls back. One for a process: its retry budget and its breakers are everybody's."""

    def __init__(
        self,
        desk: Desk,
        *,
        retries: RetryBudget,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], "asyncio.Future[None]"] | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.desk = desk
        self._retries, self._monotonic, self._uniform = retries, monotonic, uniform
        self._sleep = sleep or asyncio.sleep
        self._observers: list[Callable[[Attempt], None]] = []
        self._settling: set[asyncio.Task[None]] = set()

    def observe(self, observer: Callable[[Attempt], None]) -> None:
        """Have every attempt told to `observer` when it ends."""
        self._observers.append(observer)

    async def close(self) -> None:
        """Wait until what was cancelled is booked."""
        while self._settling:
            await asyncio.wait(self._settling)

    async def stream(self, call: Call[T]) -> AsyncGenerator[T, None]:
        """The items of the first attempt that answers. Raises the last attempt's error, AllUnavailable where none could
        be tried, BrokenOff for an answer that broke off half-way, QuotaExhausted."""
        self._retries.note_call()
        targets, number = call.plan.targets, 0
        last: PilothouseError | None = None
        for place, target in enumerate(targets):
            tries = 0
            while (ticket := target.breaker.admit(now := self._monotonic())) is not None:
                number += 1
                state = _State(ticket, number, now)
                try:
                    async with aclosing(self._try(call, target, state, targets[place + 1 :])) as items:
                        async for item in items:
                            yield item
                    return  # noqa: TRY300 - an else would not see that the loop goes on
                except QuotaExhausted as error:
                    target.breaker.abandon(ticket)
                    last = last or error  # a cheaper candidate may still fit the budget
                    break
                except UpstreamError as error:
                    if state.said:
                        raise BrokenOff(f"{target.name} broke off in the middle of its answer") from error
                    last = error
                    if _is_final(error):
                        raise
                    wait_s = self._wait(error, tries, call, more=place + 1 < len(targets))
                    if wait_s is None:
                        break
                tries += 1
                await self._sleep(wait_s)
        if last is not None:
            raise last
        now = self._monotonic()
        raise AllUnavailable(
            f"no model of {call.plan.route} can be called now",
            retry_after_s=max(0.1, min(target.breaker.wait_s(now) for target in targets)),
        )

    def _wait(self, error: UpstreamError, tries: int, call: Call[T], *, more: bool) -> float | None:
        """How long to wait before the same model is tried again; None to go on to the next."""
        if tries >= call.plan.config.retries or isinstance(error, UpstreamRejected):
            return None
        if isinstance(error, UpstreamTimeout) and more:
            return None
        asked_s = error.retry_after_s
        if isinstance(error, UpstreamRateLimited):
            if more or (asked_s or SHORT_COOL_DOWN_S) > LONGEST_WAIT_S:
                return None
            asked_s = asked_s or SHORT_COOL_DOWN_S
        if asked_s is not None and asked_s > LONGEST_WAIT_S:
            return None
        if not self._retries.take(self._monotonic()):
            return None
        # Full jitter, after Marc Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
        jitter_s = self._uniform(0, min(FIRST_BACKOFF_S * 2**tries, LONGEST_BACKOFF_S))
        return (asked_s or 0.0) + jitter_s

    async def _try(
        self, call: Call[T], target: Target, state: _State, others: tuple[Target, ...]
    ) -> AsyncGenerator[T, None]:
        """One attempt, with a second one beside it where the route hedges."""
        after_s = call.plan.config.hedge_after_s
        alone = after_s is None or not others
        tried = (
            self._attempt(call, target, state) if alone else self._race(call, target, state, others[0], after_s or 0)
        )
        async with aclosing(tried) as items:
            async for item in items:
                yield item

    async def _race(
        self, call: Call[T], target: Target, state: _State, other: Target, after_s: float
    ) -> AsyncGenerator[T, None]:
        """Ask a second model if the first has not spoken after `after_s`; who speaks first is heard to the end."""
        runners = [self._attempt(call, target, state)]
        firsts = [asyncio.ensure_future(anext(runners[0]))]
        try:
            await asyncio.wait(firsts, timeout=after_s)
            if not firsts[0].done() and (ticket := other.breaker.admit(self._monotonic())) is not None:
                second = _State(ticket, state.number + 1, self._monotonic())
                runners.append(self._attempt(call, other, second))
                firsts.append(asyncio.ensure_future(anext(runners[1])))
            winner = await _first_good(firsts)
            for place, first in enumerate(firsts):
                if place != winner:
                    await _stop(first, runners[place])
            if winner:
                state.said = True  # from here on the caller hears the second; nothing may be started again
            yield firsts[winner].result()
            async for item in runners[winner]:
                yield item
        finally:
            for first, runner in zip(firsts, runners, strict=True):
                await _stop(first, runner)

    async def _attempt(self, call: Call[T], target: Target, state: _State) -> AsyncGenerator[T, None]:
        """One attempt from reservation to settlement. Tells the breaker how it went."""
        charge, tokens = self._charge(call, target, state.number)
        hold = await self.desk.reserve(call.payer, charge, tokens)
        error: BaseException | None = None
        try:
            async with aclosing(call.open(target, _cap(call, target, charge, hold))) as items:
                async for item in items:
                    spoke, text, ended = call.read(item)
                    if text:
                        state.texts.append(text)
                    if state.first is None and (spoke or ended is not None):
                        state.first = self._monotonic()
                        await hold.recorded()
                    if ended is not None:
                        state.ended = ended
                        await hold.settle(self._bill(call, target, state, None))
                    state.said = state.said or spoke
                    yield item
            if state.ended is None:
                raise UpstreamError(f"{target.name} ended its answer without an end")  # noqa: TRY301
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._judge(target, state, error)
            if not state.settled:
                settling = asyncio.create_task(_settle(hold, self._bill(call, target, state, error)))
                if error is None or isinstance(error, asyncio.CancelledError | GeneratorExit):
                    # Whoever cancels does not wait for the books; closing the gateway does.
                    self._settling.add(settling)
                    settling.add_done_callback(self._settling.discard)
                else:
                    await settling

    def _charge(self, call: Call[T], target: Target, number: int) -> tuple[Charge, int]:
        info, price = target.info, target.price
        most = min(call.output_tokens or info.max_output_tokens, info.max_output_tokens) * call.choices
        wanted = price.worst_micros(call.prompt_tokens, most)
        least = wanted
        if call.output_tokens is None:
            least = min(wanted, price.worst_micros(call.prompt_tokens, LEAST_ANSWER_TOKENS * call.choices))
        charge = Charge(
            payer=call.payer,
            model=target.name,
            provider=target.provider_name or info.provider,
            route=call.plan.route,
            task=call.task,
            attempt=number,
            streamed=call.streamed,
            price_source=price.source,
            wanted_micros=wanted,
            least_micros=least,
            prompt_tokens=call.prompt_tokens,
            prompt_micros=price.worst_micros(call.prompt_tokens, 0),
        )
        return charge, call.prompt_tokens + (call.output_tokens or LEAST_ANSWER_TOKENS) * call.choices

    def _judge(self, target: Target, state: _State, error: BaseException | None) -> None:
        """What the attempt says of the model's health. A caller that went away says nothing."""
        breaker, now = target.breaker, self._monotonic()
        if state.ended is not None:
            took_s = now - state.started
            breaker.succeed(state.ticket, now, took_s)
            target.latency.note(took_s * 1e3)
        elif isinstance(error, UpstreamRateLimited):
            breaker.cool_down(state.ticket, now, min(error.retry_after_s or SHORT_COOL_DOWN_S, LONGEST_WAIT_S * 6))
        elif isinstance(error, UpstreamUnauthorized):
            breaker.trip(state.ticket, now)
        elif isinstance(error, UpstreamRejected) and not isinstance(error, UpstreamNotFound):
            breaker.abandon(state.ticket)
        elif isinstance(error, UpstreamError):
            breaker.fail(state.ticket, now)
        else:
            breaker.abandon(state.ticket)

    def _bill(self, call: Call[T], target: Target, state: _State, error: BaseException | None) -> Bill:
        """The attempt's bill, told to everybody who asked."""
        state.settled = True
        usage = self._used(call, target, state, error)
        outcome: Outcome = "ok"
        if state.ended is None:
            outcome = "failed" if isinstance(error, Exception) else "cancelled"
        bill = Bill(
            outcome=outcome,
            usage=usage,
            cost_micros=target.price.cost_micros(usage),
            latency_ms=round((self._monotonic() - state.started) * 1e3, 3),
            first_token_ms=None if state.first is None else round((state.first - state.started) * 1e3, 3),
            error_code="" if state.ended is not None else _code(error),
            model_version=state.ended.model_version if state.ended else target.info.version,
        )
        finish = state.ended.finish_reason if state.ended else None
        told = Attempt(call.payer, target, call.plan.route, call.task, state.number, call.streamed, bill, finish)
        if call.report is not None:
            call.report(told)
        for observer in self._observers:
            observer(told)
        return bill

    def _used(self, call: Call[T], target: Target, state: _State, error: BaseException | None) -> Usage:
        """What the provider says, else an estimate: once a model reads the prompt, vendors bill it.

        A refusal or a broken connection before the first token is taken for a call that no model read; one that was
        given up, by a deadline or by its caller, for one that was being read.
        """
        if state.ended is not None and state.ended.usage is not None:
            return state.ended.usage
        given_up = isinstance(error, UpstreamTimeout) or not isinstance(error, Exception)
        if state.ended is None and not state.texts and not state.said and not given_up:
            return Usage()
        return Usage(call.prompt_tokens, call.count(target, "".join(state.texts)), estimated=True)


async def _settle(hold: Hold, bill: Bill) -> None:
    await hold.settle(bill)


def _cap(call: Call[T], target: Target, charge: Charge, hold: Hold) -> int | None:
    """The answer's tokens that the grant pays for, where a budget bounds the call; None where none does."""
    granted = hold.granted_micros
    if granted is None:
        return None
    limit = min(call.output_tokens or target.info.max_output_tokens, target.info.max_output_tokens)
    if granted >= charge.wanted_micros or not target.price.output_picos:
        return limit
    left_picos = max(0, granted - charge.prompt_micros) * 1_000_000
    return max(1, min(limit, left_picos // (target.price.output_picos * call.choices)))


def _is_final(error: UpstreamError) -> bool:
    """Whether the call itself is wrong, so that no other model would take it either."""
    mendable = isinstance(error, UpstreamUnauthorized | UpstreamTooLong | UpstreamNotFound)
    return isinstance(error, UpstreamRejected) and not mendable


def _code(error: BaseException | None) -> str:
    """The failure's code; anything else than an error of ours that ends a call is a cancellation or a closed stream."""
    if isinstance(error, PilothouseError):
        return error.code
    return "internal_error" if isinstance(error, Exception) else "cancelled"


async def _first_good(firsts: "Sequence[asyncio.Future[T]]") -> int:
    """The place of the first that gave an item; if all failed, the last of them to fail."""
    waiting = set(firsts)
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for place, first in enumerate(firsts):
            if first in done and first.exception() is None:
                return place
        if not waiting:
            return 0


async def _stop(first: "asyncio.Future[T]", runner: AsyncGenerator[T, None]) -> None:
    if not first.done():
        first.cancel()
    with suppress(asyncio.CancelledError, StopAsyncIteration, PilothouseError):
        await first
    await runner.aclose()
