"""`POST /v1/chat/completions`: a model, a route, or a graph by the name `pilothouse/rag`.

The answer of a provider that speaks this wire passes as it came, through the output patterns. The other endpoints of
`/v1` that answer are wires of their own over `items`.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

import orjson

from app.api.v1.cached import Serving, serve
from app.api.v1.calling import Billed, Item
from app.api.v1.door import DONE, Asked, Streamed, Whole
from app.api.v1.graphs import GraphCalls
from app.api.v1.guarded import Guarded, NewFilter
from app.api.v1.shapes import ChatBody, chat_body, usage_json
from app.api.v1.translated import usage_chunk
from app.config.load import RESERVED
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.provider import WireEnd, WireEvent


class Completions:
    """Answers chat completions. `filters` gives a tenant's output patterns, anew for each text."""

    def __init__(
        self,
        gateway: ModelGateway,
        graphs: GraphCalls,
        filters: Callable[[str], NewFilter],
        *,
        max_choices: int,
        max_output_tokens: int,
    ) -> None:
        self._gateway, self._graphs, self._filters = gateway, graphs, filters
        self.max_choices, self.max_output_tokens = max_choices, max_output_tokens

    async def __call__(self, asked: Asked) -> Whole | Streamed:
        """Raises Invalid, Missing, Forbidden, QuotaExhausted, UpstreamError."""
        body = chat_body(asked.json, max_choices=self.max_choices, max_output_tokens=self.max_output_tokens)
        if is_graph(body):
            items = self._graphs.items(asked, body)
            return Streamed(_sent(items)) if body.stream else Whole(await _whole(items))
        billed = Billed()
        serving = await serve(self._gateway, asked, body, billed)
        if body.stream:
            return Streamed(self._frames(serving, self._guard(asked, body), body, billed))
        return Whole(await self._whole(serving, self._guard(asked, body), billed))

    async def items(self, asked: Asked, body: ChatBody) -> AsyncGenerator[Item, None]:
        """The answer's events, their data as it may leave, then the end with the usage that was billed. Raises as above
        and where a graph's run fails."""
        if is_graph(body):
            async with aclosing(self._graphs.items(asked, body)) as items:
                async for item in items:
                    yield item
            return
        billed = Billed()
        serving = await serve(self._gateway, asked, body, billed)
        guard = self._guard(asked, body)
        async with aclosing(serving.items) as items:
            async for item in items:
                if isinstance(item, WireEvent):
                    guard.clean(item)
                    yield item
                else:
                    yield replace(item, usage=billed.usage) if serving.hit is None else item

    def _guard(self, asked: Asked, body: ChatBody) -> Guarded:
        return Guarded(self._filters(asked.payer.tenant_id), logprobs=bool(body.raw.get("logprobs")))

    async def _whole(self, serving: Serving, guard: Guarded, billed: Billed) -> bytes:
        """The answer's JSON, its texts through the output patterns; a usage that is missing is what was counted."""
        answer: WireEvent | None = None
        async with aclosing(serving.items) as items:
            async for item in items:
                if isinstance(item, WireEvent):
                    answer = item
        assert answer is not None
        changed = guard.clean(answer)
        if answer.data.get("usage") is None:
            answer.data["usage"], changed = usage_json(billed.usage), True
        return orjson.dumps(answer.data) if changed or not answer.raw else answer.raw

    async def _frames(
        self, serving: Serving, guard: Guarded, body: ChatBody, billed: Billed
    ) -> AsyncGenerator[bytes, None]:
        """The answer's events, those that came together in one piece: each piece costs a call of the kernel. The first
        word waits for no other.

        The usage chunk is kept from clients that did not ask for it.
        """
        last: WireEvent | None = None
        together, begun = b"", False
        try:
            async with aclosing(serving.items) as items:
                async for item in items:
                    if isinstance(item, WireEvent):
                        if item.data.get("choices") or "usage" not in item.data or body.with_usage:
                            changed, last = guard.clean(item), item
                            raw = orjson.dumps(item.data) if changed or not item.raw else item.raw
                            together += b"data: " + raw + b"\n\n"
                        if together and (not item.more or (item.spoke and not begun)):
                            yield together
                            together, begun = b"", True
                    elif item.usage is None and body.with_usage and last is not None:
                        yield _frame(_counted(last, billed))
        except Exception:
            if together:
                yield together  # what came before the answer broke
            raise
        # Only here is the call settled: nobody sees the end of an answer that is not on the books.
        yield DONE


def is_graph(body: ChatBody) -> bool:
    return body.model is not None and body.model.startswith(RESERVED)


async def _whole(items: AsyncGenerator[Item, None]) -> bytes:
    async with aclosing(items):
        (answer,) = [item async for item in items if isinstance(item, WireEvent)]
    return orjson.dumps(answer.data)


async def _sent(items: AsyncGenerator[Item, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(items):
        async for item in items:
            if not isinstance(item, WireEnd):
                yield _frame(item)
    yield DONE


def _counted(last: WireEvent, billed: Billed) -> WireEvent:
    """The usage chunk that the server left out, with what was counted in its place."""
    said = last.data
    answer_id, created = str(said.get("id") or ""), said.get("created")
    chunk = usage_chunk(
        answer_id, created if isinstance(created, int) else 0, str(said.get("model") or ""), billed.usage
    )
    return WireEvent(b"", chunk, "", False)


def _frame(event: WireEvent) -> bytes:
    return b"data: " + orjson.dumps(event.data) + b"\n\n"
