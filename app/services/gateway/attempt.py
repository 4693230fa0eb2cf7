"""One attempt at a model call: reserved, opened, heard, judged, and settled whatever ends it.

Works on the items of any wire; a call says how to open an attempt and how to read an item. Nothing of an attempt leaves
before its model has spoken and the attempt is on disk, and the last item not before it is settled.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from app.records import Bill, Charge, Outcome, Payer
from app.services.gateway.ports import Desk, Hold
from app.services.gateway.rounding import Rounding
from app.services.gateway.routes import Plan, Target
from graphs.errors import (
    PilothouseError,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnauthorized,
)
from graphs.types import FinishReason, Task, Usage

log = logging.getLogger("pilothouse.gateway")

T = TypeVar("T")

SHORT_COOL_DOWN_S: Final = 1.0  # after a 429 that does not say how long
LONGEST_COOL_DOWN_S: Final = 60.0
LEAST_ANSWER_TOKENS: Final = 64  # a budget that cannot pay for so many refuses the call
RESUME_TOKENS: Final = 64  # what asking for the rest of an answer adds to a prompt, beside the text itself


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
    whether it lets the client see output, its text, and what it ends with if it is the last; `beside` gives its output
    that is no text. `count` counts the tokens of what was said where the server does not. `resume` starts an attempt
    that goes on after a text which has left; without it an answer that broke off stays broken. Of a call that is not
    `streamed` nothing leaves before its end.
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
    beside: Callable[[T], str] = lambda _: ""
    choices: int = 1
    resume: Callable[[Target, int | None, str], AsyncGenerator[T, None]] | None = None


@dataclass(slots=True)
class Books:
    """What all attempts of a process share: who reserves, who is told, which attempts run, which settlements are still
    on their way."""

    desk: Desk
    monotonic: Callable[[], float] = time.monotonic
    observers: list[Callable[[Attempt], None]] = field(default_factory=list)
    running: set["Trial[Any]"] = field(default_factory=set)
    settling: set[asyncio.Task[None]] = field(default_factory=set)
    rounding: Rounding = field(default_factory=Rounding)

    async def book(self, served: Attempt) -> None:
        """Book an answer for which no model was asked: a row of its own, on disk when this returns."""
        target = served.target
        charge = Charge(
            payer=served.payer,
            model=target.name,
            provider=target.provider_name or target.info.provider,
            route=served.route,
            task=served.task,
            attempt=served.number,
            streamed=served.streamed,
            price_source=target.price.source,
            wanted_micros=0,
            least_micros=0,
            prompt_tokens=0,
            prompt_micros=0,
        )
        hold = await self.desk.reserve(served.payer, charge, 0)
        await hold.settle(served.bill)
        for observer in self.observers:
            observer(served)

    def behind(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Do it in a task of its own: whoever cancels a call does not wait for the books; closing the gateway does."""
        task = asyncio.create_task(work)
        self.settling.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.settling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an attempt could not be settled; its reservation will be booked as abandoned", exc_info=error)


class Trial(Generic[T]):
    """An attempt while it runs. `begin`, then its further `items`, `settle` with the last, and `end` whatever happened.

    `head` are the items up to the first that may leave. Whoever takes the others from `items` keeps their `texts` here,
    and what they say `beside`. `prefix` is the text of a broken answer that this attempt goes on with.
    """

    __slots__ = (
        "_beginning",
        "_blamable",
        "_books",
        "_call",
        "_cancels",
        "_done",
        "_hearing",
        "_hold",
        "_interrupted",
        "_number",
        "_prompt_tokens",
        "_started",
        "_ticket",
        "beside",
        "ended",
        "first",
        "head",
        "items",
        "prefix",
        "stopped",
        "target",
        "texts",
    )

    def __init__(
        self, books: Books, call: Call[T], target: Target, ticket: int, number: int, *, prefix: str = ""
    ) -> None:
        self._books, self._call, self._ticket, self._number = books, call, ticket, number
        self.target, self.prefix = target, prefix
        self._started = books.monotonic()
        self._hold: Hold | None = None
        self._beginning: asyncio.Task[None] | None = None
        self.texts: list[str] = []
        self._prompt_tokens = call.prompt_tokens
        self._blamable = self._done = self._interrupted = False
        self._hearing: asyncio.Task[Any] | None = None
        self._cancels = 0
        self.stopped: PilothouseError | None = None
        """Why an operator ended it; None where none did."""
        self.items: AsyncGenerator[T, None] | None = None
        self.head: list[T] = []
        self.first: float | None = None
        self.ended: Ended | None = None
        self.beside: list[str] = []
        """What the client has seen that is no text: tool calls, reasoning; empty pieces where that has no words."""

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def said(self) -> bool:
        """Whether the client may have seen something of this answer."""
        return self._call.streamed and bool(self.texts or self.beside)

    @property
    def blamable(self) -> bool:
        """Whether an error that ended it was the model's or its server's, and not one of our own books."""
        return self._blamable

    async def begin(self) -> None:
        """Reserve, open, and wait until the model speaks, or to the end where the call is not streamed.

        Raises UpstreamError, QuotaExhausted, what it was stopped with, and what the books raise.
        """
        self.attend()
        try:
            await self._begin()
        except BaseException as error:
            if (cause := self.cause(error)) is error:
                raise
            raise cause from error

    async def _begin(self) -> None:
        call, target = self._call, self.target
        self._books.running.add(self)
        charge, tokens, most = self._charge()
        hold = self._hold = await self._books.desk.reserve(call.payer, charge, tokens)
        self.refuse_stopped()
        cap = self._cap(charge, hold, most)
        if self.prefix:
            assert call.resume is not None  # only then is a broken answer gone on with
            self.items = call.resume(target, most if cap is None else cap, self.prefix)
        else:
            self.items = call.open(target, cap)
        self._blamable = True
        async for item in self.items:
            self.head.append(item)
            spoke, text, ended = call.read(item)
            if text:
                self.texts.append(text)
            if spoke and ((beside := call.beside(item)) or not text):
                self.beside.append(beside)
            if self.first is None and (spoke or ended is not None):
                self.first = self._books.monotonic()
            if ended is not None or (self.first is not None and call.streamed):
                self._blamable = False
                # What is settled is recorded too: a call that is not streamed waits for one commit.
                await (hold.recorded() if ended is None else self.settle(ended))
                self._blamable = True
                return
        self.require_end()

    def start(self) -> "asyncio.Task[None]":
        """`begin` in a task of its own, which `end` stops."""
        self._beginning = asyncio.create_task(self.begin())
        return self._beginning

    def attend(self) -> None:
        """This task hears the answer from here on."""
        self._hearing = task = asyncio.current_task()
        assert task is not None
        self._cancels = task.cancelling()

    def stop(self, error: PilothouseError) -> None:
        """End it with `error` unless it has its answer: at once where it waits for the model, else at its next item."""
        if self.ended is not None or self.stopped is not None:
            return
        self.stopped = error
        if self._hearing is not None and getattr(self.items, "ag_running", False):  # typing does not know the attribute
            self._interrupted = True
            self._hearing.cancel()

    def refuse_stopped(self) -> None:
        """Raises what it was stopped with."""
        if self.stopped is not None and self.ended is None:
            raise self.stopped

    def cause(self, error: BaseException) -> BaseException:
        """What `error` comes from: `stopped`, where it is a cancellation and that alone has cancelled."""
        if not self._interrupted or self._hearing is None:
            return error
        self._interrupted = False
        ours = self._hearing.uncancel() <= self._cancels and isinstance(error, asyncio.CancelledError)
        return self.stopped if ours and self.stopped is not None else error

    def require_end(self) -> None:
        """Raises UpstreamError for an answer that stopped without its last item."""
        if self.ended is None:
            raise UpstreamError(f"{self.target.name} ended its answer without an end")

    async def settle(self, ended: Ended) -> None:
        """Book an answer that came to its end, before its last item leaves."""
        hold = self._hold
        assert hold is not None
        self.ended = ended
        self._judge(None)
        await hold.settle(self._bill(None))

    async def end(self, error: BaseException | None) -> None:
        """Close the upstream, tell the breaker how it went, and book what was used. Ending twice changes nothing."""
        settling: asyncio.Task[None] | None = None
        self._books.running.discard(self)
        try:
            if (beginning := self._beginning) is not None and not beginning.done():
                beginning.cancel()
                await asyncio.wait((beginning,))
            if self.items is not None:
                await self.items.aclose()
        finally:
            if not self._done:
                self._judge(error)
                if self._hold is not None:
                    settling = self._books.behind(self._hold.settle(self._bill(error)))
        if settling is not None and isinstance(error, Exception):
            await asyncio.wait((settling,))

    def _judge(self, error: BaseException | None) -> None:
        """What the attempt says of the model's health. A caller that went away says nothing."""
        self._done = True
        target, ticket, now = self.target, self._ticket, self._books.monotonic()
        breaker = target.breaker
        if self.ended is not None:
            breaker.succeed(ticket, now, (self.first or now) - self._started)
            target.latency.note((now - self._started) * 1e3, now)
            return
        if not self._blamable or not isinstance(error, UpstreamError):
            breaker.abandon(ticket)
            return
        asked_s = asked_wait_s(error)
        if isinstance(error, UpstreamRateLimited):
            wait_s = SHORT_COOL_DOWN_S if asked_s is None else min(asked_s, LONGEST_COOL_DOWN_S)
            breaker.cool_down(ticket, now, wait_s)
        elif isinstance(error, UpstreamUnauthorized):
            log.error("a model server refuses our credential", extra={"model": target.name, "code": error.code})
            breaker.trip(ticket, now)
        elif isinstance(error, UpstreamRejected) and not isinstance(error, UpstreamNotFound):
            breaker.abandon(ticket)
        else:
            if isinstance(error, UpstreamTimeout):
                target.latency.note((now - self._started) * 1e3, now)
            breaker.fail(ticket, now)
            if asked_s is not None:
                breaker.cool_down(0, now, min(asked_s, LONGEST_COOL_DOWN_S))

    def _charge(self) -> tuple[Charge, int, int]:
        """What to reserve, how many tokens of the rate limits it counts, and the most that the answer may have."""
        call, target = self._call, self.target
        info, price = target.info, target.price
        asked = call.output_tokens
        if self.prefix:
            before = call.count(target, self.prefix)
            self._prompt_tokens += before + RESUME_TOKENS
            asked = None if asked is None else max(1, asked - before)
        read = self._prompt_tokens
        most = info.max_output_tokens if asked is None else min(asked, info.max_output_tokens)
        wanted = price.worst_micros(read, most * call.choices)
        least = wanted
        if asked is None:
            least = min(wanted, price.worst_micros(read, LEAST_ANSWER_TOKENS * call.choices))
        charge = Charge(
            payer=call.payer,
            model=target.name,
            provider=target.provider_name or info.provider,
            route=call.plan.route,
            task=call.task,
            attempt=self._number,
            streamed=call.streamed,
            price_source=price.source,
            wanted_micros=wanted,
            least_micros=least,
            prompt_tokens=read,
            prompt_micros=price.worst_micros(read, 0),
        )
        expected = LEAST_ANSWER_TOKENS if asked is None else asked
        return charge, read + expected * call.choices, most

    def _cap(self, charge: Charge, hold: Hold, most: int) -> int | None:
        """The answer's tokens that the grant pays for, where a budget bounds the call; None where none does."""
        granted = hold.granted_micros
        if granted is None:
            return None
        picos = self.target.price.worst_output_picos(charge.prompt_tokens)
        if granted >= charge.wanted_micros or not picos:
            return most
        left_picos = max(0, granted - charge.prompt_micros) * 1_000_000
        return max(1, min(most, left_picos // (picos * self._call.choices)))

    def _bill(self, error: BaseException | None) -> Bill:
        """The attempt's bill, told to everybody who asked."""
        call, target, ended = self._call, self.target, self.ended
        usage = self._used(error)
        outcome: Outcome = "ok"
        if ended is None:
            outcome = "failed" if isinstance(error, Exception) else "cancelled"
        bill = Bill(
            outcome=outcome,
            usage=usage,
            cost_micros=self._books.rounding.micros(call.payer.tenant_id, target.name, target.price.cost_picos(usage)),
            latency_ms=round((self._books.monotonic() - self._started) * 1e3, 3),
            first_token_ms=None if self.first is None else round((self.first - self._started) * 1e3, 3),
            error_code="" if ended is not None else _code(error),
            model_version=ended.model_version if ended is not None else target.info.version,
        )
        finish = None if ended is None else ended.finish_reason
        told = Attempt(call.payer, target, call.plan.route, call.task, self._number, call.streamed, bill, finish)
        if call.report is not None:
            call.report(told)
        for observer in self._books.observers:
            observer(told)
        return bill

    def _used(self, error: BaseException | None) -> Usage:
        """What the provider says, else an estimate: once a model reads the prompt, vendors bill it.

        A refusal or a broken connection before the first token is taken for a call that no model read; one that was
        given up, by a deadline, its caller or an operator, for one that was being read.
        """
        call, ended = self._call, self.ended
        if ended is not None and ended.usage is not None:
            return ended.usage
        told = error.usage if isinstance(error, UpstreamError) else None
        # As of an answer that came to its end: one that cost nothing is not believed where something was said.
        if told is not None and (told.output_tokens or not (self.texts or self.beside)):
            return told
        given_up = isinstance(error, UpstreamTimeout) or not isinstance(error, Exception) or error is self.stopped
        if self.items is None or (ended is None and self.first is None and not given_up):
            return Usage()
        return Usage(self._prompt_tokens, call.count(self.target, self.text + "".join(self.beside)), estimated=True)


def asked_wait_s(error: UpstreamError) -> float | None:
    """How long the server asked to be left alone; None where it did not say, or said nonsense."""
    wait_s = error.retry_after_s
    return wait_s if wait_s is not None and 0 <= wait_s < float("inf") else None


def _code(error: BaseException | None) -> str:
    """The failure's code; anything else than an error of ours that ends a call is a cancellation or a closed stream."""
    if isinstance(error, PilothouseError):
        return error.code
    return "internal_error" if isinstance(error, Exception) else "cancelled"
