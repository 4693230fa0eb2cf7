"""One streamed answer as it is heard: our deadlines, whatever the wire, and what is no whole answer."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Protocol

import aiohttp

from app.services.gateway.link import Deadline, page, refusal
from app.services.gateway.provider import Timeouts
from app.services.gateway.sse import SseParser
from graphs.errors import UpstreamError, UpstreamTimeout
from graphs.types import Completion, ModelRequest

_CLOSING_S: Final = 5.0  # from the finish reason to the usage that follows it


class Assembly(Protocol):
    """Puts a completion together from the events of one wire."""

    @property
    def pieces(self) -> int:
        """How many events brought the answer on: with text, a tool call, hidden reasoning, the reason of its end."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it has said why it stopped."""
        ...

    @property
    def over(self) -> bool:
        """Whether nothing follows any more."""
        ...

    def hear(self, data: str) -> str:
        """The text that an event adds, often empty. Raises the upstream's own error, UpstreamError for garbage."""
        ...

    def completion(self, request: ModelRequest, count: Callable[[str], int]) -> Completion:
        """The whole. Usage that the server did not give, or gave as garbage, is counted with `count` and marked."""
        ...


class Reply:
    """Reads one response into an assembly. Made as the request goes out: its clock starts there."""

    def __init__(self, name: str, assembly: Assembly, timeouts: Timeouts, secret: str) -> None:
        self._name, self._assembly, self._timeouts, self._secret = name, assembly, timeouts, secret
        self._started = self._heard = asyncio.get_running_loop().time()
        self._pieces = 0

    def deadline(self) -> Deadline:
        """Bounds the next wait: by the first token, the next one or the whole call, whichever is nearest."""
        if self._assembly.finished:
            waited, at = "the end of the answer", self._heard + min(_CLOSING_S, self._timeouts.between_tokens_s)
        elif self._pieces:
            waited, at = "the next token", self._heard + self._timeouts.between_tokens_s
        else:
            waited, at = "the first token", self._started + self._timeouts.first_token_s
        if (whole := self._started + self._timeouts.total_s) < at:
            waited, at = "the whole answer", whole
        return Deadline(at, f"{self._name} took too long for {waited}")

    async def texts(self, response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
        """The texts of the answer's events, none empty. Ends only on a whole answer."""
        if response.status != 200:
            raise await refusal(self._name, response, self._secret, lambda: self._page(response))
        if response.content_type.endswith("json"):
            if text := self._hear((await self._page(response)).decode("utf-8", "replace")):
                yield text
        elif response.content_type != "text/event-stream":
            raise UpstreamError(f"{self._name} answered with {response.content_type}, not with events")
        else:
            async with aclosing(self._events(response)) as events:
                async for data in events:
                    if text := self._hear(data):
                        yield text
                    if self._assembly.over:
                        break
        if not (self._assembly.finished or self._assembly.over):
            raise UpstreamError(f"{self._name} broke off before the end of its answer")

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
        parser = SseParser()
        chunk = b"."
        while chunk:
            chunk = await self._next(response)
            for data in parser.feed(chunk) if chunk else parser.close():
                yield data

    async def _next(self, response: aiohttp.ClientResponse) -> bytes:
        """The next bytes; empty at the end, and where only the usage of a finished answer fails to come."""
        try:
            async with self.deadline():
                return await response.content.readany()
        except (aiohttp.ClientError, UpstreamTimeout):
            if self._assembly.finished:
                return b""
            raise

    def _hear(self, data: str) -> str:
        text = self._assembly.hear(data)
        if self._assembly.pieces > self._pieces:  # a server that only pings has not moved on
            self._pieces, self._heard = self._assembly.pieces, asyncio.get_running_loop().time()
        return text

    async def _page(self, response: aiohttp.ClientResponse) -> bytes:
        return await page(self._name, response, self.deadline)
