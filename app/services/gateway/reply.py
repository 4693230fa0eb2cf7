"""One streamed answer as it is heard: our deadlines, whatever the wire, and what is no whole answer."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, Protocol

from app.services.gateway.connection import Deadline, Response
from app.services.gateway.link import page, refusal
from app.services.gateway.provider import Timeouts
from app.services.gateway.sse import Frames
from graphs.errors import UpstreamError
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

    def hear(self, data: bytes) -> str:
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

    async def texts(self, response: Response) -> AsyncGenerator[str, None]:
        """The answer's text as it comes, none empty; what came together in one piece. Ends only on a whole answer."""
        if response.status != 200:
            raise await refusal(self._name, response, self._secret, lambda: self._page(response))
        if response.content_type.endswith("json"):
            if text := self._assembly.hear(await self._page(response)):
                yield text
        elif response.content_type != "text/event-stream":
            raise UpstreamError(f"{self._name} answered with {response.content_type}, not with events")
        else:
            frames = Frames(self._name)
            while not self._assembly.over:
                chunk = await self._next(response)
                said: list[str] = []
                try:
                    self._hear_all(frames.feed(chunk) if chunk else frames.close(), said)
                except UpstreamError:
                    if said:
                        yield "".join(said)  # what came before the answer broke
                    raise
                if said:
                    yield "".join(said)
                if not chunk:
                    break
        if not (self._assembly.finished or self._assembly.over):
            raise UpstreamError(f"{self._name} broke off before the end of its answer")

    async def _next(self, response: Response) -> bytes:
        """The next bytes; empty at the end, and where only the usage of a finished answer fails to come."""
        try:
            return await response.read(self.deadline())
        except UpstreamError:
            if self._assembly.finished:
                return b""
            raise

    def _hear_all(self, events: Sequence[bytes], said: list[str]) -> None:
        """Every token that came in one read passes the layers above as one: each of them costs them all."""
        assembly = self._assembly
        for data in events:
            if text := assembly.hear(data):
                said.append(text)
            if assembly.over:
                break
        if assembly.pieces > self._pieces:  # a server that only pings has not moved on
            self._pieces, self._heard = assembly.pieces, asyncio.get_running_loop().time()

    async def _page(self, response: Response) -> bytes:
        return await page(self._name, response, self.deadline)
