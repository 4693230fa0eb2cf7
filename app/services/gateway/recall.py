"""The typed door's way through the cache: what of a request decides its answer, and which answers are kept."""

import time
import unicodedata
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import fields, replace
from typing import Any, Final

from app.services.gateway.answers import Answer, Asked
from app.services.gateway.attempt import Attempt, Call
from app.services.gateway.cache import Cache, Hit
from app.services.gateway.recover import Recovery
from app.services.gateway.routes import Target
from graphs.types import Completion, Continuation, Delta, Message, ModelRequest, Task, Usage

Item = Delta | Completion

MAX_TEMPERATURE: Final = 1.0  # the vendors' default: who asks for more asks for another answer each time
_TOOL_TASKS: Final[frozenset[Task]] = frozenset(("agent", "arguments"))
_APART: Final = frozenset(("messages", "model", "question", "grounding"))


async def through(
    cache: Cache, recovery: Recovery, call: Call[Item], request: ModelRequest
) -> AsyncGenerator[Item, None]:
    """The call's items: a kept answer where there is one, else the model's, which is then kept."""
    asked = _asked(cache, call, request)
    if asked is not None and (completion := await _recalled(cache, recovery, call, asked)) is not None:
        yield Delta(completion.text)
        yield completion
        return
    heard = Heard(call)
    whole = True
    leading = nullcontext() if asked is None else cache.leading(asked)
    with leading:
        async with aclosing(recovery.stream(heard.call)) as items:
            async for item in items:
                whole = whole and not isinstance(item, Continuation)
                if isinstance(item, Completion) and whole and asked is not None:
                    answer = _kept(item, heard.target, cache.now())
                    if answer is not None:
                        await cache.keep(asked, call.plan, answer)
                yield item


async def recalled(cache: Cache, recovery: Recovery, call: Call[Item], request: ModelRequest) -> Completion | None:
    """A kept answer of any age, booked; None where there is none."""
    asked = _asked(cache, call, request)
    return None if asked is None else await _recalled(cache, recovery, call, asked, any_age=True)


async def served(recovery: Recovery, call: Call[Any], hit: Hit, started: float) -> None:
    """Book a hit. Nothing of it may leave before."""
    took_ms = (time.perf_counter() - started) * 1e3
    attempt = hit.free(call.payer, call.plan, call.task, streamed=call.streamed, latency_ms=took_ms)
    await recovery.book(attempt)
    if call.report is not None:
        call.report(attempt)


class Heard:
    """A call that tells which model answered it, and what that used."""

    def __init__(self, call: Call[Any]) -> None:
        self.target: Target | None = None
        self.usage = Usage()
        self._report = call.report
        self.call = replace(call, report=self._hear)

    def _hear(self, attempt: Attempt) -> None:
        if attempt.bill.outcome == "ok":
            self.target, self.usage = attempt.target, attempt.bill.usage
        if self._report is not None:
            self._report(attempt)


def even(text: str) -> str:
    """Texts that read the same are the same."""
    return unicodedata.normalize("NFC", text)


async def _recalled(
    cache: Cache, recovery: Recovery, call: Call[Item], asked: Asked, *, any_age: bool = False
) -> Completion | None:
    started = time.perf_counter()
    hit = await cache.look(asked, call.plan, any_age=any_age)
    if hit is None:
        return None
    await served(recovery, call, hit, started)
    answer = hit.answer
    return Completion(answer.text, answer.model, answer.model_version, answer.provider, answer.usage, "stop")


def _kept(completion: Completion, target: Target | None, made_at: float) -> Answer | None:
    """A completion as it is kept; None for one that is not whole, plain text."""
    if completion.finish_reason != "stop" or completion.tool_calls or not completion.text or target is None:
        return None
    return Answer(
        completion.text, target.name, completion.model_version, completion.provider, completion.usage, made_at
    )


def _asked(cache: Cache, call: Call[Item], request: ModelRequest) -> Asked | None:
    """The request's name; None for one that is never cached: it uses tools, or asks for variety."""
    if not cache.covers(call.plan) or request.tools or request.task in _TOOL_TASKS:
        return None
    if any(message.role == "tool" or message.tool_calls for message in request.messages):
        return None
    if request.temperature is not None and request.temperature > MAX_TEMPERATURE:
        return None
    *earlier, last = request.messages
    said, question = even(last.content), even(request.question)
    # What a graph asks stands at the end of the last message; before it stand the passages.
    if last.role != "user" or not question or not said.endswith(question):
        question = ""
    # Whatever else a request may say decides its answer too, fields that come later included.
    told: dict[str, Any] = {
        field.name: getattr(request, field.name) for field in fields(request) if field.name not in _APART
    }
    told |= {
        "wire": "typed",
        "messages": [*map(_turn, earlier), [last.role, said.removesuffix(question)]],
        "asked": "" if question else request.question,
        # Not their scores: these say how near the question's words were, which is not what an answer is made of.
        "grounding": [[passage.chunk_id, passage.start, passage.end, passage.text] for passage in request.grounding],
    }
    return cache.asked(call.payer, call.plan, told, question)


def _turn(message: Message) -> list[str]:
    return [message.role, even(message.content)]
