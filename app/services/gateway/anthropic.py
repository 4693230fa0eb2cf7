"""Speaks Anthropic's Messages API: Anthropic itself, llama.cpp and other servers of that wire.

Always streams, never retries. The vendor's prompt cache is used unless a provider's `arguments` switch it off.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Self

from app.config.schema import ModelConfig, ProviderConfig
from app.services.gateway.anthropic_answer import Assembly
from app.services.gateway.anthropic_wire import answers_by_tool, body
from app.services.gateway.link import drain
from app.services.gateway.reply import Reply
from app.services.gateway.server import ModelServer
from app.services.gateway.tokens import estimate_tokens
from app.services.gateway.wire import counted
from graphs.errors import Invalid
from graphs.types import Completion, Delta, ModelInfo, ModelRequest

BASE_URL: Final = "https://api.anthropic.com"
VERSION: Final = "2023-06-01"  # of the API; the header is mandatory and this its only current value


class AnthropicProvider:
    """One model of a server that speaks the Messages API. Its base URL may end in /v1 or leave it out.

    An empty `info.version` takes the name under which the server answers. `served_name` is the server's name for the
    model where ours differs.
    """

    def __init__(
        self,
        info: ModelInfo,
        server: ModelServer,
        *,
        served_name: str | None = None,
        count: Callable[[str], int] = estimate_tokens,
        cache_prompts: bool = True,
    ) -> None:
        self.info = info
        self._server, self._served_name = server, served_name or info.name
        self._count, self._cache_prompts = count, cache_prompts
        headers = {"anthropic-version": VERSION} | ({"x-api-key": server.api_key} if server.api_key else {})
        self._link = server.link(info.name, server.url.removesuffix("/v1") + "/v1/messages", headers)

    @classmethod
    def configured(cls, info: ModelInfo, place: ProviderConfig, model: ModelConfig, key: str) -> Self:
        """The model as the configuration file has it. Raises Invalid."""
        if unknown := place.arguments.keys() - {"cache_prompts"}:
            raise Invalid(f"a provider of kind anthropic has no argument {min(unknown)!r}", field="arguments")
        return cls(
            info,
            ModelServer.configured(place, key, BASE_URL),
            served_name=model.model,
            cache_prompts=bool(place.arguments.get("cache_prompts", True)),
        )

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        server = self._server
        assembly = Assembly(self.info, server.api_key, by_tool=answers_by_tool(request))
        reply = Reply(self.info.name, assembly, server.timeouts, server.api_key)
        payload = body(request, self.info, self._served_name, cache_prompts=self._cache_prompts)
        with await self._link.post(payload, reply.deadline()) as response:
            with counted(assembly.told_usage):
                async with aclosing(reply.texts(response)) as texts:
                    async for text in texts:
                        yield Delta(text)
                completion = assembly.completion(request, self._count)
            yield completion
            await drain(response)

    async def close(self) -> None:
        await self._link.close()
