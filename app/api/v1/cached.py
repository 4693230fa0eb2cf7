"""The wire's way through the cache: which bodies may be answered again, what is kept, and how it is replayed.

Kept is plain text in one choice. What differs between clients without a difference for the answer (streamed or not, who
the user is, which of the two token limits) differs in no key, so that a stream may be answered from a JSON call.
"""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from app.api.v1.calling import Billed, Item, call_of, call_on
from app.api.v1.door import Asked
from app.api.v1.shapes import ChatBody, answer_json, chunk_json
from app.services.gateway import answers
from app.services.gateway.answers import Answer
from app.services.gateway.cache import Cache, Hit
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.provider import WireEnd, WireEvent
from app.services.gateway.recall import MAX_TEMPERATURE, Heard, even, served
from app.services.gateway.recover import Call
from graphs.errors import PilothouseError
from graphs.types import Completion

HEADER: Final = b"x-pilothouse-cache"

# They change nothing of an answer, or stand in the key in one form for all.
_NEUTRAL: Final = frozenset(
    (
        *("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens"),
        *("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
    )
)
# With one of these an answer is more than its text, or the call does more than answer.
_NEVER: Final = (
    *("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "web_search_options"),
    *("logprobs", "top_logprobs", "audio", "store"),
)
_TEXT: Final = frozenset(("role", "content"))


@dataclass(slots=True)
class Serving:
    """The items of an answer; `hit` where it was kept from an earlier call."""

    items: AsyncGenerator[Item, None]
    hit: Hit | None = None


async def serve(gateway: ModelGateway, asked: Asked, body: ChatBody, billed: Billed | None = None) -> Serving:
    """Answer from the cache where the route has one and something is in it, else by the models. Raises as call_of.

    `Cache-Control: no-cache` asks for a new answer, `no-store` for one that is not kept either.
    """
    cache = gateway.cache
    if cache is None:
        return Serving(gateway.recovery.stream(await call_of(gateway, asked, body, billed)))
    started = time.perf_counter()
    if (aged := await _aged(cache, gateway, asked, body, started)) is not None:
        return aged
    call = await call_of(gateway, asked, body, billed)
    named, wish = _named(cache, call, body), _wish(asked.sent)
    if named is None or b"no-store" in wish:
        return Serving(gateway.recovery.stream(call))
    if b"no-cache" not in wish and (hit := await cache.look(named, call.plan)) is not None:
        return await _replay(gateway, call, asked, body, hit, started)
    asked.headers.append((HEADER, b"miss"))
    return Serving(_kept(cache, gateway, call, named))


async def _aged(cache: Cache, gateway: ModelGateway, asked: Asked, body: ChatBody, started: float) -> Serving | None:
    """What there is of any age, where the budget's ladder wants that first: of the asked route, else of its own."""
    step = await gateway.recovery.desk.rung(asked.payer)
    if step is None or not step.cached:
        return None
    name = gateway.router.name_for(body.model, "chat")
    for route in dict.fromkeys((name, step.route or name)):
        try:
            call = call_on(gateway, asked, body, route)
        except PilothouseError:
            continue  # a route that cannot serve the call now has nothing for it either
        named = _named(cache, call, body)
        if named is not None and (hit := await cache.look(named, call.plan, any_age=True)) is not None:
            return await _replay(gateway, call, asked, body, hit, started)
    return None


async def _replay(
    gateway: ModelGateway, call: Call[Item], asked: Asked, body: ChatBody, hit: Hit, started: float
) -> Serving:
    await served(gateway.recovery, call, hit, started)
    asked.headers.extend([(HEADER, hit.kind.encode()), (b"age", str(int(hit.age_s)).encode())])
    return Serving(_again(hit, body), hit)


async def _again(hit: Hit, body: ChatBody) -> AsyncGenerator[Item, None]:
    """The answer as events: what was said then, under an id of its own."""
    answer, told = hit.answer, hit.answer.told
    answer_id, created = f"chatcmpl-{time.time_ns():x}", int(answer.made_at)
    served_as = str(told.get("model") or answer.model)
    completion = Completion(answer.text, served_as, answer.model_version, answer.provider, answer.usage, "stop")
    whole = answer_json(completion, answer.text, answer_id, created)
    usage = told.get("usage") or whole["usage"]
    more = {name: told[name] for name in ("system_fingerprint",) if name in told}
    mark = {"pilothouse": {"cached": hit.kind, "ageSeconds": int(hit.age_s)}}
    if not body.stream:
        yield WireEvent(b"", whole | {"usage": usage} | more | mark, answer.text, True)
    else:
        said = {"role": "assistant", "content": answer.text}
        yield WireEvent(b"", chunk_json(answer_id, created, served_as, said) | more, answer.text, True)
        yield WireEvent(b"", chunk_json(answer_id, created, served_as, {}, "stop") | more | mark, "", False)
        if body.with_usage:
            last = chunk_json(answer_id, created, served_as, {}) | more
            yield WireEvent(b"", last | {"choices": [], "usage": usage}, "", False)
    yield WireEnd(answer.usage, "stop", answer.model_version)


async def _kept(
    cache: Cache, gateway: ModelGateway, call: Call[Item], named: answers.Asked
) -> AsyncGenerator[Item, None]:
    """The models' items; what they amount to is kept before the last one leaves."""
    heard = Heard(call)
    recording = _Recording()
    with cache.leading(named):
        async with aclosing(gateway.recovery.stream(heard.call)) as items:
            async for item in items:
                if isinstance(item, WireEvent):
                    recording.hear(item)
                elif (answer := recording.answer(item, heard, cache.now())) is not None:
                    await cache.keep(named, call.plan, answer)
                yield item


@dataclass(slots=True)
class _Recording:
    """One answer as it passes, before the output patterns have touched it."""

    texts: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    plain: bool = True

    def hear(self, event: WireEvent) -> None:
        data = event.data
        self.texts.append(event.text)
        self.told |= {name: data[name] for name in ("model", "system_fingerprint", "usage") if data.get(name)}
        choices = data.get("choices")
        # `pilothouse` in an event of a model: another model went on with an answer that had broken off.
        self.plain = self.plain and "pilothouse" not in data and isinstance(choices, list) and all(map(_plain, choices))

    def answer(self, end: WireEnd, heard: Heard, made_at: float) -> Answer | None:
        """What is kept; None for an answer that is not whole, plain text."""
        text = "".join(self.texts)
        if not self.plain or not text or end.finish_reason != "stop" or heard.target is None:
            return None
        provider = heard.target.info.provider
        return Answer(text, heard.target.name, end.model_version, provider, heard.usage, made_at, dict(self.told))


def _plain(choice: Any) -> bool:
    """Whether a choice is the first, and nothing but text: no reasoning beside it, no tool call, no refusal."""
    if not isinstance(choice, dict) or choice.get("index", 0) != 0 or choice.get("logprobs"):
        return False
    piece = choice.get("delta") or choice.get("message") or {}
    if not isinstance(piece, dict) or not isinstance(piece.get("content") or "", str):
        return False
    return not any(value for name, value in piece.items() if name not in _TEXT)


def _named(cache: Cache, call: Call[Item], body: ChatBody) -> answers.Asked | None:
    """The body's name in the cache; None for one that is never answered from there."""
    raw = body.raw
    if not cache.covers(call.plan) or body.choices != 1 or body.parts or any(raw.get(name) for name in _NEVER):
        return None
    if raw.get("modalities") not in (None, ["text"]):
        return None
    temperature = raw.get("temperature")
    varied = isinstance(temperature, int | float) and temperature > MAX_TEMPERATURE and raw.get("seed") is None
    if varied or any(_uses_tools(message) for message in raw["messages"]):
        return None
    messages = [_even_message(message) for message in raw["messages"]]
    question, last = "", messages[-1]
    if last.keys() == _TEXT and last["role"] == "user" and isinstance(last["content"], str):
        question, messages[-1] = last["content"], {"role": "user"}
    told = {name: value for name, value in raw.items() if name not in _NEUTRAL and name not in _NEVER}
    told |= {"wire": "openai", "messages": messages, "max_tokens": body.max_tokens}
    return cache.asked(call.payer, call.plan, told, question)


def _uses_tools(message: Mapping[str, Any]) -> bool:
    return message["role"] in {"tool", "function"} or bool(message.get("tool_calls") or message.get("function_call"))


def _even_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with its texts in one form; a single part of text is the text."""
    given = {name: value for name, value in message.items() if value is not None}
    content = given.get("content")
    if isinstance(content, list):
        parts = [part | {"text": even(part["text"])} if isinstance(part.get("text"), str) else part for part in content]
        alone = len(parts) == 1 and parts[0].keys() == {"type", "text"} and isinstance(parts[0]["text"], str)
        given["content"] = parts[0]["text"] if alone else parts
    elif isinstance(content, str):
        given["content"] = even(content)
    return given


def _wish(sent: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The directives of the request's Cache-Control."""
    given = [value for name, value in sent if name == b"cache-control"]
    return frozenset(directive.strip().lower() for value in given for directive in value.split(b","))
