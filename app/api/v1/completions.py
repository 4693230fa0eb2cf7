"""`POST /v1/chat/completions`: a model, a route, or a graph by the name `pilothouse/rag`.

A provider that speaks this wire gets the client's own request and its answer passes as it came, through the output
patterns; for every other provider request and answer are translated.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import orjson

from app.api.v1.door import DONE, Asked, Streamed, Whole
from app.api.v1.graphs import GraphCalls
from app.api.v1.shapes import ChatBody, answer_json, calls_json, chat_body, chunk_json, finish_json, model_request
from app.config.load import RESERVED
from app.config.schema import RouteConfig
from app.services.gateway.gateway import ModelGateway, timed
from app.services.gateway.provider import Forwards, Timeouts, WireEnd, WireEvent
from app.services.gateway.recover import Call, Ended
from app.services.gateway.routes import Need, Plan, Target
from app.services.gateway.tokens import MESSAGE_TOKENS, estimate_tokens
from graphs.context import StreamFilter
from graphs.errors import QuotaExhausted
from graphs.types import Completion, Delta

LONG_CHARS: Final = 32_768  # beyond it, tokens are bounded by bytes: reading every word would cost a millisecond
_REFUSAL_RETRY_S: Final = 3_600.0

Item = WireEvent | WireEnd


class Completions:
    """Answers chat completions. `new_filter` gives the output patterns for one choice's text."""

    def __init__(
        self,
        gateway: ModelGateway,
        graphs: GraphCalls,
        new_filter: Callable[[], StreamFilter],
        *,
        max_choices: int,
        max_output_tokens: int,
    ) -> None:
        self._gateway, self._graphs, self._new_filter = gateway, graphs, new_filter
        self._max_choices, self._max_output_tokens = max_choices, max_output_tokens

    async def __call__(self, asked: Asked) -> Whole | Streamed:
        body = chat_body(asked.json, max_choices=self._max_choices, max_output_tokens=self._max_output_tokens)
        if body.model is not None and body.model.startswith(RESERVED):
            return await self._graphs.answer(asked, body)
        return await self.answer(asked, body)

    async def answer(self, asked: Asked, body: ChatBody) -> Whole | Streamed:
        """The answer of a model or route. Raises Missing, Forbidden, QuotaExhausted, UpstreamError."""
        call = await self._call(asked, body)
        if body.stream:
            return Streamed(self._frames(call, body))
        return Whole(await self._whole(call))

    async def _call(self, asked: Asked, body: ChatBody) -> Call[Item]:
        desk = self._gateway.recovery.desk
        name = self._gateway.router.name_for(body.model, "chat")
        if (step := await desk.rung(asked.payer)) is not None:
            if step.answer is not None:
                raise QuotaExhausted("the month's budget is used up", retry_after_s=_REFUSAL_RETRY_S)
            name = step.route or name
        prompt_tokens = _estimate(body)
        need = Need("chat", prompt_tokens, body.max_tokens or 0, desk.allowed(asked.payer))
        plan = self._gateway.router.plan(name, need)
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
            choices=body.choices,
        )

    async def _whole(self, call: Call[Item]) -> bytes:
        """The answer's JSON, its texts through the output patterns."""
        answer: WireEvent | None = None
        async with aclosing(self._gateway.recovery.stream(call)) as items:
            async for item in items:
                if isinstance(item, WireEvent):
                    answer = item
        assert answer is not None
        changed = False
        for choice in answer.data.get("choices") or ():
            message = choice.get("message") if isinstance(choice, dict) else None
            if isinstance(message, dict) and isinstance(text := message.get("content"), str) and text:
                guarded = self._new_filter()
                clean = guarded.feed(text) + guarded.close()
                if clean != text:
                    message["content"], changed = clean, True
        return orjson.dumps(answer.data) if changed or not answer.raw else answer.raw

    async def _frames(self, call: Call[Item], body: ChatBody) -> AsyncGenerator[bytes, None]:
        """The answer's events. The usage chunk is kept from clients that did not ask for it."""
        guard = _Guarded(self._new_filter)
        async with aclosing(self._gateway.recovery.stream(call)) as items:
            async for item in items:
                if isinstance(item, WireEvent):
                    if not item.data.get("choices") and "usage" in item.data and not body.with_usage:
                        continue
                    yield b"data: " + guard.through(item) + b"\n\n"
        # Only here is the call settled: nobody sees the end of an answer that is not on the books.
        yield DONE


class _Guarded:
    """The output patterns over the choices of one stream."""

    def __init__(self, new_filter: Callable[[], StreamFilter]) -> None:
        self._new_filter = new_filter
        self._filters: dict[int, StreamFilter] = {}

    def through(self, event: WireEvent) -> bytes:
        """The event as it may leave; its own bytes where nothing had to be changed."""
        changed = not event.raw
        for choice in event.data.get("choices") or ():
            if not isinstance(choice, dict) or not isinstance(delta := choice.get("delta"), dict):
                continue
            text = delta.get("content")
            clean = self._clean(text, choice.get("index") or 0, ends=choice.get("finish_reason") is not None)
            if clean != text:
                delta["content"], changed = clean, True
        return orjson.dumps(event.data) if changed else event.raw

    def _clean(self, text: Any, index: int, *, ends: bool) -> Any:
        """What may leave of one choice now: with its end also what was held back. Not a text: as it is."""
        guarded = self._filters.get(index)
        clean = text
        if isinstance(text, str) and text:
            if guarded is None:
                guarded = self._filters[index] = self._new_filter()
            clean = guarded.feed(text)
        if ends and guarded is not None and (rest := guarded.close()):
            clean = (clean or "") + rest
        return clean


def _estimate(body: ChatBody) -> int:
    tokens = MESSAGE_TOKENS
    for text in body.texts:
        size = len(text)
        tokens += MESSAGE_TOKENS + (estimate_tokens(text) if size <= LONG_CHARS else len(text.encode()) // 2)
    if body.raw.get("tools"):
        tokens += len(orjson.dumps(body.raw["tools"])) // 3
    return tokens


def _opener(body: ChatBody, plan: Plan) -> Callable[[Target, int | None], AsyncGenerator[Item, None]]:
    config = plan.config
    timeouts = Timeouts(
        first_token_s=config.first_token_timeout_s or config.timeout_s,
        between_tokens_s=config.between_tokens_timeout_s,
        total_s=config.timeout_s,
    )

    def opened(target: Target, cap: int | None) -> AsyncGenerator[Item, None]:
        provider = target.provider
        if isinstance(provider, Forwards):
            return provider.forward(_capped(body.raw, cap), stream=body.stream, timeouts=timeouts)
        return _translated(target, body, cap, config)

    return opened


def _capped(raw: Mapping[str, Any], cap: int | None) -> Mapping[str, Any]:
    """The body, with its answer bounded where a budget asks for it; in the field that the client used."""
    if cap is None:
        return raw
    field = "max_completion_tokens" if raw.get("max_completion_tokens") is not None else "max_tokens"
    asked = raw.get(field)
    return {**raw, field: cap if asked is None else min(asked, cap)}


async def _translated(
    target: Target, body: ChatBody, cap: int | None, config: RouteConfig
) -> AsyncGenerator[Item, None]:
    """A typed provider's answer as events of this wire."""
    request = model_request(body, target.name)
    if cap is not None and (request.max_tokens is None or request.max_tokens > cap):
        request = replace(request, max_tokens=cap)
    answer_id, created = f"chatcmpl-{time.time_ns():x}", int(time.time())
    begun = False
    async with aclosing(timed(target, request, config)) as items:
        async for item in items:
            if isinstance(item, Delta):
                delta = {"content": item.text} if begun else {"role": "assistant", "content": item.text}
                begun = True
                if body.stream:
                    yield WireEvent(b"", chunk_json(answer_id, created, target.name, delta), item.text, True)
                continue
            for event in _ending(item, body, answer_id, created):
                yield event
            yield WireEnd(item.usage, item.finish_reason, item.model_version)


def _ending(completion: Completion, body: ChatBody, answer_id: str, created: int) -> list[WireEvent]:
    """The events that a completion ends with: the whole answer, or the last chunks of a stream."""
    if not body.stream:
        return [WireEvent(b"", answer_json(completion, completion.text, answer_id, created), completion.text, True)]
    name = completion.model
    events: list[dict[str, Any]] = []
    if completion.tool_calls:
        calls = calls_json(completion.tool_calls, indexed=True)
        events.append(chunk_json(answer_id, created, name, {"role": "assistant", "tool_calls": calls}))
    events.append(chunk_json(answer_id, created, name, {}, finish_json(completion)))
    if body.with_usage:
        from_usage = chunk_json(answer_id, created, name, {})
        answer = answer_json(completion, "", answer_id, created)
        events.append(from_usage | {"choices": [], "usage": answer["usage"]})
    return [WireEvent(b"", event, "", bool(event["choices"])) for event in events]


def _read(item: Item) -> tuple[bool, str, Ended | None]:
    if isinstance(item, WireEvent):
        return item.spoke, item.text, None
    return False, "", Ended(item.usage, item.finish_reason, item.model_version)


def _count(target: Target, text: str) -> int:
    return target.provider.count_tokens(text) if text else 0
