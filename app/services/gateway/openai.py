"""Speaks OpenAI's chat completions: OpenAI itself, vLLM, Ollama, llama.cpp and whatever imitates it.

Always streams where we ask ourselves: the deadlines can only be kept where the answer is seen to grow. Never retries.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import orjson

from app.services.gateway.link import drain
from app.services.gateway.openai_forward import Passage
from app.services.gateway.openai_wire import Assembly, MaxTokensField, Sampling, body
from app.services.gateway.provider import Timeouts, WireEnd, WireEvent
from app.services.gateway.reply import Reply
from app.services.gateway.server import ModelServer
from app.services.gateway.tokens import estimate_tokens
from app.services.gateway.wire import counted
from graphs.types import Completion, Delta, ModelInfo, ModelRequest


def bearer(api_key: str) -> dict[str, str]:
    """The header that carries a key on this wire; none for a server without one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


class OpenAiProvider:
    """One model of an OpenAI-compatible server, whose base URL includes its /v1.

    An empty `info.version` takes the name under which the server answers, which vendors date. `served_name` is the
    server's name for the model where ours differs. Made inside or outside a loop.
    """

    def __init__(
        self,
        info: ModelInfo,
        server: ModelServer,
        *,
        served_name: str | None = None,
        sampling: Sampling | None = None,
        count: Callable[[str], int] = estimate_tokens,
        max_tokens_field: MaxTokensField | None = None,
    ) -> None:
        self.info = info
        self._server = server
        self._served_name = served_name
        self._sampling = sampling or Sampling()
        self._count = count
        # OpenAI's reasoning models refuse the old name; most of its imitators know no other.
        vendor = urlsplit(server.base_url).hostname == "api.openai.com"
        self._max_tokens_field = max_tokens_field or ("max_completion_tokens" if vendor else "max_tokens")
        self._link = server.link(info.name, server.url + "/chat/completions", bearer(server.api_key))

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        server = self._server
        assembly = Assembly(self.info, server.api_key)
        reply = Reply(self.info.name, assembly, server.timeouts, server.api_key)
        payload = body(request, self.info, self._sampling, self._max_tokens_field, self._served_name)
        with await self._link.post(payload, reply.deadline()) as response:
            with counted(assembly.told_usage):
                async with aclosing(reply.texts(response)) as texts:
                    async for text in texts:
                        yield Delta(text)
                completion = assembly.completion(request, self._count)
            yield completion
            await drain(response)

    async def forward(
        self, body: Mapping[str, Any], *, stream: bool, timeouts: Timeouts
    ) -> AsyncGenerator[WireEvent | WireEnd, None]:
        """The client's own request, passed on; see `provider.Forwards`."""
        said = {**body, "model": self._served_name or self.info.name, "stream": stream}
        if stream:
            options = body.get("stream_options")
            said["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        if self._max_tokens_field == "max_completion_tokens" and (limit := said.pop("max_tokens", None)) is not None:
            said.setdefault("max_completion_tokens", limit)
        passage = Passage(self.info, timeouts, self._server.api_key)
        with await self._link.post(orjson.dumps(said), passage.head()) as response:
            with counted(lambda: passage.usage):
                if stream:
                    async with aclosing(passage.events(response)) as events:
                        async for event in events:
                            yield event
                else:
                    yield await passage.whole(response)
                end = passage.end()
            yield end

    async def close(self) -> None:
        await self._link.close()
