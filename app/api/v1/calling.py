"""A body of chat completions as a call that the gateway can try: planned, bounded, opened on either kind of provider.

A provider that speaks this wire gets the client's own request; for every other one it is translated.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol

import orjson

from app.api.v1.door import Asked
from app.api.v1.shapes import ChatBody
from app.api.v1.translated import translated
from app.services.gateway.continuation import continued_body
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.meter import told
from app.services.gateway.provider import Timeouts, WireEnd, WireEvent
from app.services.gateway.recover import Attempt, Call, Ended
from app.services.gateway.routes import Plan, Target
from app.services.gateway.tokens import MESSAGE_TOKENS, estimate_tokens
from graphs.errors import QuotaExhausted
from graphs.types import Usage

READ_CHARS: Final = 131_072  # beyond it, tokens are bounded by bytes: reading every word would cost 5 ms and more
PART_TOKENS: Final = 1_600  # what vendors count at most for an image
DEGRADED: Final = b"x-pilothouse-degraded"
_REFUSAL_RETRY_S: Final = 3_600.0

Item = WireEvent | WireEnd


class Forward(Protocol):
    """How a provider that is a `provider.Forwards` takes a call."""

    def __call__(self, body: Mapping[str, Any], *, stream: bool, timeouts: Timeouts) -> AsyncGenerator[Item, None]: ...


class Billed:
    """Hears what the attempt that answered was billed for."""

    def __init__(self) -> None:
        self.usage = Usage()

    def __call__(self, attempt: Attempt) -> None:
        if attempt.finish_reason is not None:  # a hedge that lost may end later
            self.usage = attempt.bill.usage


async def call_of(gateway: ModelGateway, asked: Asked, body: ChatBody, billed: Billed | None = None) -> Call[Item]:
    """Raises Missing, Forbidden, QuotaExhausted, PromptTooLong, NoModelFits."""
    desk = gateway.recovery.desk
    name = gateway.router.name_for(body.model, "chat")
    step = await desk.rung(asked.payer)
    if step is None:
        return call_on(gateway, asked, body, name, billed)
    if step.answer is not None:
        raise QuotaExhausted("the month's budget is used up", retry_after_s=_REFUSAL_RETRY_S)
    route = gateway.router.led_to(step.route, "chat")
    call = call_on(gateway, asked, body, route or name, billed)
    if step.context_tokens is not None and call.prompt_tokens > step.context_tokens:
        # A client's own messages are not ours to shorten.
        raise QuotaExhausted(
            f"so near the end of the month's budget a prompt may have {step.context_tokens} tokens",
            field="messages",
            retry_after_s=_REFUSAL_RETRY_S,
        )
    asked.headers.append((DEGRADED, told(step, route_taken=route == step.route).encode()))
    return call


def call_on(gateway: ModelGateway, asked: Asked, body: ChatBody, name: str, billed: Billed | None = None) -> Call[Item]:
    """The call on that route or model, whatever the ladder says. Raises as ModelGateway.plan_on does."""
    prompt_tokens = prompt_tokens_of(body)
    plan = gateway.plan_on(name, "chat", prompt_tokens, body.max_tokens or 0, asked.payer)
    return Call(
        payer=asked.payer,
        plan=plan,
        task="chat",
        streamed=body.stream,
        prompt_tokens=prompt_tokens,
        output_tokens=body.max_tokens,
        open=_opener(body, plan),
        read=_read,
        count=_count,
        beside=_beside,
        report=billed,
        choices=body.choices,
        resume=None if body.raw.get("response_format") else _resumer(body, plan),
    )


def prompt_tokens_of(body: ChatBody) -> int:
    """How many tokens the prompt has at most."""
    tokens = MESSAGE_TOKENS + PART_TOKENS * body.parts
    left = READ_CHARS
    for text in body.texts:
        left -= len(text)
        tokens += MESSAGE_TOKENS + (estimate_tokens(text) if left >= 0 else len(text.encode()) // 2)
    if tools := body.raw.get("tools"):
        tokens += len(orjson.dumps(tools)) // 3
    return tokens


def _resumer(body: ChatBody, plan: Plan) -> Callable[[Target, int | None, str], AsyncGenerator[Item, None]]:
    def resumed(target: Target, cap: int | None, prefix: str) -> AsyncGenerator[Item, None]:
        rest = replace(body, raw=continued_body(body.raw, prefix))
        return _marked(_opener(rest, plan)(target, cap), target.name)

    return resumed


async def _marked(items: AsyncGenerator[Item, None], model: str) -> AsyncGenerator[Item, None]:
    """The events of the model that goes on with a broken answer; the first of them says so."""
    begun = False
    async with aclosing(items):
        async for item in items:
            if not begun and isinstance(item, WireEvent):
                begun = True
                data = {**item.data, "pilothouse": {"continuedBy": model}}
                item = WireEvent(b"", data, item.text, item.spoke, item.more)
            yield item


def _opener(body: ChatBody, plan: Plan) -> Callable[[Target, int | None], AsyncGenerator[Item, None]]:
    config = plan.config
    timeouts = Timeouts(
        first_token_s=config.first_token_timeout_s or config.timeout_s,
        between_tokens_s=config.between_tokens_timeout_s,
        total_s=config.timeout_s,
    )

    def opened(target: Target, cap: int | None) -> AsyncGenerator[Item, None]:
        # Not isinstance(provider, Forwards): asking a protocol takes 10 us.
        forward: Forward | None = getattr(target.provider, "forward", None)
        if forward is not None:
            return forward(_capped(body.raw, cap), stream=body.stream, timeouts=timeouts)
        return translated(target, body, cap, config)

    return opened


def _capped(raw: Mapping[str, Any], cap: int | None) -> Mapping[str, Any]:
    """The body, with its answer bounded where a budget asks for it; in the fields that the client used."""
    if cap is None:
        return raw
    used = [name for name in ("max_completion_tokens", "max_tokens") if raw.get(name) is not None]
    return {**raw, **{name: min(raw.get(name) or cap, cap) for name in used or ["max_tokens"]}}


def _read(item: Item) -> tuple[bool, str, Ended | None]:
    if isinstance(item, WireEvent):
        return item.spoke, item.text, None
    return False, "", Ended(item.usage, item.finish_reason, item.model_version)


def _beside(item: Item) -> str:
    return item.beside if isinstance(item, WireEvent) else ""


def _count(target: Target, text: str) -> int:
    return target.provider.count_tokens(text) if text else 0
