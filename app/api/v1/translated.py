"""The answer of a provider with a wire of its own, as events of OpenAI's."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from app.api.v1.shapes import ChatBody, answer_json, calls_json, chunk_json, finish_json, usage_json
from app.api.v1.typed import model_request
from app.config.schema import RouteConfig
from app.services.gateway.gateway import timed
from app.services.gateway.provider import WireEnd, WireEvent
from app.services.gateway.routes import Target
from graphs.types import Completion, Usage


async def translated(
    target: Target, body: ChatBody, cap: int | None, config: RouteConfig
) -> AsyncGenerator[WireEvent | WireEnd, None]:
    """Events in order, then the end. Raises Invalid for what this provider cannot be asked, else as it does."""
    request = model_request(body, target.name)
    if cap is not None and (request.max_tokens is None or request.max_tokens > cap):
        request = replace(request, max_tokens=cap)
    answer_id, created = f"chatcmpl-{time.time_ns():x}", int(time.time())
    until, role = Until(request.stop), {"role": "assistant"}
    said: list[str] = []
    completion: Completion | None = None
    async with aclosing(timed(target, request, config)) as items:
        async for item in items:
            if isinstance(item, Completion):
                completion = item
            text = until.close() if isinstance(item, Completion) else until.feed(item.text)
            if text:
                said.append(text)
                if body.stream:
                    yield WireEvent(
                        b"", chunk_json(answer_id, created, target.name, role | {"content": text}), text, True
                    )
                    role = {}
            if until.reached:
                break  # leaving closes the provider's stream: what comes after would be paid and thrown away
    text, usage = "".join(said), completion.usage if completion is not None else None
    if completion is None:
        # The stop came first, and nobody said what the call had used: it is estimated from the text.
        info = target.info
        completion = Completion(text, info.name, info.version, info.provider, Usage(), "stop")
    for event in _ending(completion, text, body, answer_id, created):
        yield WireEvent(b"", event, "" if body.stream else text, bool(event["choices"]))
    yield WireEnd(usage, completion.finish_reason, completion.model_version)


def _ending(completion: Completion, text: str, body: ChatBody, answer_id: str, created: int) -> list[dict[str, Any]]:
    """The whole answer, or the last chunks of a stream."""
    if not body.stream:
        return [answer_json(completion, text, answer_id, created)]
    name, events = completion.model, []
    if completion.tool_calls:
        calls = calls_json(completion.tool_calls, indexed=True)
        events.append(chunk_json(answer_id, created, name, {"role": "assistant", "tool_calls": calls}))
    events.append(chunk_json(answer_id, created, name, {}, finish_json(completion)))
    if body.with_usage and completion.usage != Usage():
        events.append(usage_chunk(answer_id, created, name, completion.usage))
    return events


def usage_chunk(answer_id: str, created: int, model: str, usage: Usage) -> dict[str, Any]:
    """The last chunk of a stream whose client asked for the usage."""
    return chunk_json(answer_id, created, model, {}) | {"choices": [], "usage": usage_json(usage)}


class Until:
    """A text up to the first of some texts that end it, fed in pieces. Providers that know stops never get there."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.reached = False

    def feed(self, text: str) -> str:
        """What is certainly before the end."""
        if not self._stops:
            return text
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        self.reached = bool(found)
        safe = min(found) if found else len(self._held) - self._begun()
        out, self._held = self._held[:safe], self._held[safe:]
        return out

    def close(self) -> str:
        """What was held back and belongs to the answer after all."""
        return self._held

    def _begun(self) -> int:
        """How many characters at the end may be the beginning of a stop."""
        longest = min(max(map(len, self._stops)) - 1, len(self._held))
        tails = range(longest, 0, -1)
        return next((size for size in tails if any(stop.startswith(self._held[-size:]) for stop in self._stops)), 0)
