"""The one layer that retries: tries a plan's models until one answers.

Waits with full jitter, honours what servers ask for, keeps to a retry budget, goes on to the next model, and hedges
where a route says so. Once something of an answer has left, nothing is started again in silence: the error goes to the
caller, or another model goes on from there and the stream says so.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from app.services.gateway.attempt import SHORT_COOL_DOWN_S, Attempt, Books, Call, Ended, Trial, asked_wait_s
from app.services.gateway.ports import Desk
from app.services.gateway.retries import RetryBudget
from app.services.gateway.routes import Target
from graphs.errors import (
    Forbidden,
    PilothouseError,
    PromptTooLong,
    QuotaExhausted,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)

T = TypeVar("T")

FIRST_BACKOFF_S: Final = 0.25
LONGEST_BACKOFF_S: Final = 8.0
LONGEST_WAIT_S: Final = 10.0  # a Retry-After beyond it is not waited for
CLOCK_SLACK_S: Final = 0.005  # a loop's timer may fire that much before the clock that cool-downs are kept by
SHORTEST_RETRY_S: Final = 0.1  # what a caller is told where all probes are out and will be back any moment


class AllUnavailable(UpstreamError):
    """No model of the route may be tried now: each rests after failures, or asked to be left alone."""

    code = "all_unavailable"


class BrokenOff(UpstreamError):
    """The model's answer broke off after a part of it had left."""

    code = "upstream_broke_off"


@dataclass(slots=True)
class _Way:
    """How far a call has come through its candidates. `prefix` is the part of a broken answer that has left."""

    attempts: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    prefix: str = ""
    last: PilothouseError | None = None


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
        self._books = Books(desk, monotonic)
        self._retries, self._monotonic, self._uniform = retries, monotonic, uniform
        self._sleep = sleep or asyncio.sleep

    def observe(self, observer: Callable[[Attempt], None]) -> None:
        """Have every attempt told to `observer` when it ends."""
        self._books.observers.append(observer)

    async def book(self, served: Attempt) -> None:
        """Book an answer for which no model was asked, and tell the observers. Nothing of it may leave before."""
        await self._books.book(served)

    def stop(self, model: str, error: PilothouseError) -> None:
        """End the attempts that run at that model with `error`; their calls go on with the next candidates, as far as a
        broken answer may."""
        for trial in tuple(self._books.running):
            if trial.target.name == model:
                trial.stop(error)

    async def close(self) -> None:
        """Wait until what was cancelled is booked."""
        while self._books.settling:
            await asyncio.wait(self._books.settling)

    async def stream(self, call: Call[T]) -> AsyncGenerator[T, None]:
        """The items of the first attempt that answers. Raises the last attempt's error, AllUnavailable where none could
        be tried, BrokenOff for an answer that broke off half-way, Forbidden, QuotaExhausted, PromptTooLong."""
        self._retries.note_call()
        targets, config = call.plan.targets, call.plan.config
        way = _Way()
        for place, target in enumerate(targets):
            others = targets[place + 1 :]
            while way.tries.get(target.name, 0) <= config.retries:
                if (ticket := target.breaker.admit(self._monotonic())) is None:
                    break
                way.attempts += 1
                trial = Trial(self._books, call, target, ticket, way.attempts, prefix=way.prefix)
                try:
                    if config.hedge_after_s is None or not others or way.prefix:
                        await trial.begin()
                    else:
                        trial = await self._race(call, way, trial, others)
                    trial.attend()
                    for item in trial.head:
                        yield item
                    trial.refuse_stopped()
                    # Flat on purpose: every generator inside a generator costs each token of each answer.
                    if trial.ended is None and trial.items is not None:
                        read, keep = call.read, trial.texts.append
                        async for item in trial.items:
                            spoke, text, ended = read(item)
                            if text:
                                keep(text)
                            elif spoke:
                                trial.beside.append(call.beside(item))
                            if ended is not None:
                                await trial.settle(ended)
                            yield item
                            if trial.stopped is not None:
                                trial.refuse_stopped()
                        trial.require_end()
                except BaseException as raised:
                    error = trial.cause(raised)
                    await trial.end(error)
                    wait_s = self._after(error, call, way, trial, others)
                else:
                    await trial.end(None)
                    return
                if wait_s is None:
                    break
                await self._sleep(wait_s)
        raise self._failed(call, way)

    def _after(
        self, error: BaseException, call: Call[T], way: _Way, trial: Trial[T], others: Sequence[Target]
    ) -> float | None:
        """How long to wait before the same model is tried again; None to go on to the next. Raises what is final."""
        if trial.ended is None and trial.stopped is not None and error is trial.stopped:
            if trial.said and not _may_continue(call, trial, error):
                raise error
            way.prefix, way.last = way.prefix + (trial.text if trial.said else ""), error
            return None
        if isinstance(error, QuotaExhausted | Forbidden):
            way.last = way.last or error  # a cheaper candidate may still fit the budget, another one be switched on
            way.attempts -= 1  # nothing was asked or booked: the ledger counts calls by their first attempts
            return None
        if not isinstance(error, UpstreamError) or trial.ended is not None or not trial.blamable:
            raise error
        if trial.said:
            if not _may_continue(call, trial, error):
                raise BrokenOff(f"{trial.target.name} broke off in the middle of its answer") from error
            way.prefix += trial.text
        elif _is_final(error):
            raise error
        way.last = error
        name = trial.target.name
        way.tries[name] = tried = way.tries.get(name, 0) + 1
        return self._wait_s(error, tried, call, others, broke=trial.said)

    def _wait_s(
        self, error: UpstreamError, tried: int, call: Call[Any], others: Sequence[Target], *, broke: bool
    ) -> float | None:
        if tried > call.plan.config.retries or isinstance(error, UpstreamRejected):
            return None
        now, asked_s = self._monotonic(), asked_wait_s(error)
        slow = broke or asked_s is not None or isinstance(error, UpstreamTimeout | UpstreamRateLimited)
        if slow and any(not other.breaker.wait_s(now) for other in others):
            return None  # another model answers sooner
        if asked_s is None and isinstance(error, UpstreamRateLimited):
            asked_s = SHORT_COOL_DOWN_S
        if (asked_s or 0) > LONGEST_WAIT_S or not self._retries.take(now):
            return None
        # Full jitter, after Marc Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
        jitter_s = self._uniform(0, min(FIRST_BACKOFF_S * 2 ** (tried - 1), LONGEST_BACKOFF_S))
        return jitter_s if asked_s is None else asked_s + CLOCK_SLACK_S + jitter_s

    def _failed(self, call: Call[Any], way: _Way) -> PilothouseError:
        """What the caller is told when every candidate was tried or rests."""
        route, now, last = call.plan.route, self._monotonic(), way.last
        if last is None:
            wait_s = min(target.breaker.wait_s(now) for target in call.plan.targets)
            return AllUnavailable(f"no model of {route} can be called now", retry_after_s=max(SHORTEST_RETRY_S, wait_s))
        told = last
        if way.prefix:
            told = BrokenOff(f"the answer broke off and no model of {route} could go on with it")
        elif isinstance(last, UpstreamTooLong):
            told = PromptTooLong(last.message, field="messages")
        if told is not last:
            told.__cause__ = last
        return told

    async def _race(self, call: Call[T], way: _Way, lead: Trial[T], others: Sequence[Target]) -> Trial[T]:
        """Ask a second model if the first has not spoken after the route's `hedge_after_s`; who speaks first is heard.

        The other one is cancelled at once and booked behind. If both fail, raises the error of the first.
        """
        racing, beginnings = [lead], [lead.start()]
        winner = lead
        try:
            await asyncio.wait(beginnings, timeout=call.plan.config.hedge_after_s)
            if not beginnings[0].done() and (rival := self._rival(call, way, others)) is not None:
                racing.append(rival)
                beginnings.append(rival.start())
            winner = racing[await _first_good(beginnings)]
        finally:
            for trial, beginning in zip(racing, beginnings, strict=True):
                if trial is not winner:
                    failure = _failure(beginning)
                    self._books.behind(trial.end(failure))
                    if isinstance(failure, UpstreamError):
                        way.tries[trial.target.name] = 1
        beginnings[racing.index(winner)].result()
        return winner

    def _rival(self, call: Call[T], way: _Way, others: Sequence[Target]) -> Trial[T] | None:
        """The first other model that may be asked now. It counts as a retry: in a storm of failures nobody hedges."""
        now = self._monotonic()
        for other in others:
            if (ticket := other.breaker.admit(now)) is not None:
                if not self._retries.take(now):
                    other.breaker.abandon(ticket)
                    return None
                way.attempts += 1
                return Trial(self._books, call, other, ticket, way.attempts)
        return None


def _is_final(error: PilothouseError) -> bool:
    """Whether the call itself is wrong, so that no other model would take it either."""
    mendable = isinstance(error, UpstreamUnauthorized | UpstreamTooLong | UpstreamNotFound)
    return isinstance(error, UpstreamRejected) and not mendable


def _may_continue(call: Call[Any], trial: Trial[Any], error: PilothouseError) -> bool:
    """Whether another model may go on with what has left: only one text can be, no tool call and no two choices."""
    asked = call.plan.config.on_broken_stream == "continue" and call.resume is not None
    return asked and call.choices == 1 and not trial.beside and not _is_final(error)


async def _first_good(beginnings: "Sequence[asyncio.Task[None]]") -> int:
    """The place of the first that succeeded; if all failed, the first place."""
    waiting = set(beginnings)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for place, beginning in enumerate(beginnings):
            if beginning in done and _failure(beginning) is None:
                return place
    return 0


def _failure(beginning: "asyncio.Task[None]") -> BaseException | None:
    """Why it failed; CancelledError for one that has not ended, since it is about to be cancelled."""
    if not beginning.done() or beginning.cancelled():
        return asyncio.CancelledError()
    return beginning.exception()


__all__ = ["AllUnavailable", "Attempt", "BrokenOff", "Call", "Ended", "Recovery"]
