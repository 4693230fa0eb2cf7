"""Passes OpenAI's wire through: events as they came, read only as far as settling and guarding need."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import orjson

from app.services.gateway.connection import Deadline, Response
from app.services.gateway.link import drain, page, refusal
from app.services.gateway.openai_wire import FINISH, read_usage
from app.services.gateway.provider import Timeouts, WireEnd, WireEvent
from app.services.gateway.sse import Frames
from app.services.gateway.upstream import failure
from app.services.gateway.wire import parse_event
from graphs.errors import UpstreamError
from graphs.types import ModelInfo, Usage

MAX_ANSWER_BYTES: Final = 64 << 20
_DONE: Final = b"[DONE]"


class Passage:
    """One forwarded call: its deadlines, and what must be known of it at its end."""

    def __init__(self, info: ModelInfo, timeouts: Timeouts, secret: str) -> None:
        self._info, self._timeouts, self._secret = info, timeouts, secret
        loop = asyncio.get_running_loop()
        self._now = loop.time
        self._started = self._heard = loop.time()
        self._spoke = False
        self.usage: Usage | None = None
        """What the server has counted so far, where it said so."""
        self._finish, self._served = "", ""

    def head(self) -> Deadline:
        """Bounds the wait for the response's head, which for a call that does not stream is that for the answer."""
        return self._within(self._timeouts.first_token_s, self._started, "the first token")

    def _next(self) -> Deadline:
        if self._spoke:
            return self._within(self._timeouts.between_tokens_s, self._heard, "the next token")
        return self._within(self._timeouts.first_token_s, self._started, "the first token")

    def _within(self, seconds: float, since: float, waited: str) -> Deadline:
        at, whole = since + seconds, self._started + self._timeouts.total_s
        if whole < at:
            at, waited = whole, "the whole answer"
        return Deadline(at, f"{self._info.name} took too long for {waited}")

    def end(self) -> WireEnd:
        """Raises UpstreamError for an answer that had no end."""
        if not self._finish:
            raise UpstreamError(f"{self._info.name} broke off before the end of its answer")
        # An answer that cost nothing is not believed: without a usage, it is counted.
        free = self.usage is not None and self.usage.output_tokens == 0 and self._spoke
        usage = None if free else self.usage
        return WireEnd(usage, FINISH.get(self._finish, "unknown"), self._info.version or self._served)

    async def whole(self, response: Response) -> WireEvent:
        """The one event of a call that does not stream."""
        if response.status != 200:
            raise await refusal(self._info.name, response, self._secret, lambda: self._page(response))
        return self._event(await self._page(response))

    async def events(self, response: Response) -> AsyncGenerator[WireEvent, None]:
        """The events of a stream but its [DONE]."""
        if response.status != 200:
            raise await refusal(self._info.name, response, self._secret, lambda: self._page(response))
        if response.content_type != "text/event-stream":
            if not response.content_type.endswith("json"):
                raise UpstreamError(f"{self._info.name} answered with {response.content_type}, not with events")
            yield self._event(await self._page(response))  # an error, or a server that does not stream
            return
        frames = Frames(self._info.name)
        while True:
            try:
                chunk = await response.read(self._next())
            except UpstreamError:
                if self._finish:
                    return  # only the usage that follows a finished answer did not come
                raise
            read = frames.feed(chunk) if chunk else frames.close()
            for place, data in enumerate(read, 1):
                if data == _DONE:
                    await drain(response)
                    return
                event = self._event(data)
                event.more = place < len(read) and read[place] != _DONE
                yield event
            if not chunk:
                return

    def _event(self, data: bytes) -> WireEvent:
        try:
            parsed = orjson.loads(data)
        except orjson.JSONDecodeError:
            parsed = parse_event(self._info.name, data.decode("utf-8", "replace"))
            data = orjson.dumps(parsed)
        if isinstance(parsed, list) and parsed:  # Gemini's OpenAI endpoint wraps its errors in a list
            parsed = parsed[0]
            data = orjson.dumps(parsed)
        if not isinstance(parsed, dict):
            raise UpstreamError(f"{self._info.name} sent an event that is not an object")
        if (failed := parsed.get("error")) is not None:
            raise failure(self._info.name, 200, failed, secret=self._secret)
        if (said := parsed.get("usage")) is not None:
            if (usage := read_usage(said)) is not None:
                self.usage = usage
            else:  # what nobody can be billed for is told to nobody
                parsed["usage"] = None
                data = orjson.dumps(parsed)
        if not self._served and isinstance(served := parsed.get("model"), str):
            self._served = served
        text, beside, spoke = "", "", False
        choices = parsed.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            if isinstance(finish := choice.get("finish_reason"), str):
                self._finish = finish
            piece = choice.get("delta") or choice.get("message")
            if isinstance(piece, dict):
                if is_text := isinstance(content := piece.get("content"), str):
                    text += content
                    spoke = spoke or bool(content)
                if len(piece) > is_text + ("role" in piece):
                    more, found = _beside(piece)
                    beside, spoke = beside + found, spoke or more
        if spoke:  # a server that sends comments or empty chunks alone has not moved on
            self._spoke, self._heard = True, self._now()
        return WireEvent(data, parsed, text, spoke, beside=beside)

    async def _page(self, response: Response) -> bytes:
        whole = self._timeouts.total_s
        return await page(
            self._info.name, response, lambda: self._within(whole, self._started, "the whole answer"), MAX_ANSWER_BYTES
        )


def _beside(piece: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a delta or message has output beside a text, and what of that is written: reasoning, a refusal, what a
    tool is called with, a content in parts."""
    spoke, written = False, ""
    for name, value in piece.items():
        if name == "role" or not value or (name == "content" and isinstance(value, str)):
            continue
        spoke = True
        if isinstance(value, str):
            written += value
        elif isinstance(value, list):
            written += "".join(_written(part) for part in value if isinstance(part, dict))
    return spoke, written


def _written(part: Mapping[str, Any]) -> str:
    function = part.get("function")
    told = (
        part.get("text"),
        *((function.get("name"), function.get("arguments")) if isinstance(function, dict) else ()),
    )
    return "".join(value for value in told if isinstance(value, str))
