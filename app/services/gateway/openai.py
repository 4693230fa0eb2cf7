"""Speaks OpenAI's chat completions over aiohttp: OpenAI itself, vLLM, Ollama, llama.cpp and whatever imitates it.

Always streams: the deadlines below can only be kept where the answer is seen to grow. Never retries.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import orjson

from app.services.gateway.openai_forward import Deadline, Passage, drain, refusal
from app.services.gateway.openai_wire import Assembly, MaxTokensField, Sampling, body, parse
from app.services.gateway.provider import Timeouts, WireEnd, WireEvent
from app.services.gateway.sse import SseParser
from app.services.gateway.tokens import estimate_tokens
from graphs.errors import Invalid, UpstreamError, UpstreamTimeout
from graphs.types import Completion, Delta, ModelInfo, ModelRequest

_MAX_BODY_BYTES: Final = 1 << 22  # an answer that does not stream, or an error's page
_CLOSING_S: Final = 5.0  # from the finish reason to the usage that follows it


class OpenAiProvider:
    """One model of an OpenAI-compatible server. `base_url` includes its /v1.

    An empty `info.version` takes the name under which the server answers, which vendors date. `served_name` is the
    server's name for the model where ours differs. `keep_alive_s` None opens a connection for each call. Made inside or
    outside a loop; the session opens at the first call.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        base_url: str,
        api_key: str = "",
        served_name: str | None = None,
        timeouts: Timeouts | None = None,
        sampling: Sampling | None = None,
        count: Callable[[str], int] = estimate_tokens,
        max_tokens_field: MaxTokensField | None = None,
        keep_alive_s: float | None = 15.0,
        max_connections: int = 256,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise Invalid("the model server's base URL must be http:// or https://", field="openai_base_url")
        self.info = info
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._api_key = api_key
        self._served_name = served_name
        self._timeouts = timeouts or Timeouts()
        self._sampling = sampling or Sampling()
        self._count = count
        # OpenAI's reasoning models refuse the old name; most of its imitators know no other.
        by_host: MaxTokensField = "max_completion_tokens" if parts.hostname == "api.openai.com" else "max_tokens"
        self._max_tokens_field = max_tokens_field or by_host
        self._keep_alive_s, self._max_connections = keep_alive_s, max_connections
        self._session: aiohttp.ClientSession | None = None
        self._responses: set[aiohttp.ClientResponse] = set()
        self._closed = False

    def count_tokens(self, text: str) -> int:
        return self._count(text)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        call = _Call(self.info, self._timeouts, self._api_key)
        payload = body(request, self.info, self._sampling, self._max_tokens_field, self._served_name)
        response: aiohttp.ClientResponse | None = None
        try:
            async with call.deadline():
                response = await self._open().post(self._url, data=payload, allow_redirects=False)
            self._responses.add(response)
            async with aclosing(call.read(response)) as texts:
                async for text in texts:
                    yield Delta(text)
            yield call.assembly.completion(request, self._count)
            await drain(response)
        except TimeoutError as error:  # of the socket's connect; aiohttp's is a ClientError too, hence first
            raise UpstreamTimeout(f"{self.info.name} did not answer in time") from error
        except aiohttp.ClientError as error:
            # The exception's own words can hold the URL and its query; the caller learns what broke.
            raise UpstreamError(f"{self.info.name} cannot be reached or broke off ({type(error).__name__})") from error
        finally:
            if response is not None:
                self._responses.discard(response)
                # A body not read to its end closes its connection at once, and with it the upstream's work.
                if not response.content.at_eof():
                    response.close()

    async def forward(
        self, body: Mapping[str, Any], *, stream: bool, timeouts: Timeouts
    ) -> AsyncGenerator[WireEvent | WireEnd, None]:
        """The client's own request, passed on; see `provider.Forwards`."""
        said = {**body, "model": self._served_name or self.info.name, "stream": stream}
        if stream:
            options = body.get("stream_options")
            said["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        passage = Passage(self.info, timeouts, self._api_key)
        response: aiohttp.ClientResponse | None = None
        try:
            async with passage.head():
                response = await self._open().post(self._url, data=orjson.dumps(said), allow_redirects=False)
            self._responses.add(response)
            async with aclosing(passage.events(response) if stream else passage.whole(response)) as events:
                async for event in events:
                    yield event
            yield passage.end()
        except TimeoutError as error:  # of the socket's connect; aiohttp's is a ClientError too, hence first
            raise UpstreamTimeout(f"{self.info.name} did not answer in time") from error
        except aiohttp.ClientError as error:
            raise UpstreamError(f"{self.info.name} cannot be reached or broke off ({type(error).__name__})") from error
        finally:
            if response is not None:
                self._responses.discard(response)
                if not response.content.at_eof():
                    response.close()

    async def close(self) -> None:
        self._closed = True
        for response in tuple(self._responses):
            response.close()  # a closing session drops its connections without a word to those who read them
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # a proxy variable meant for something else must not see prompts
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        if self._keep_alive_s is None:
            return aiohttp.TCPConnector(limit=self._max_connections, force_close=True)
        return aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=self._keep_alive_s)


class _Call:
    """One call: its deadlines and what has come so far."""

    def __init__(self, info: ModelInfo, timeouts: Timeouts, secret: str) -> None:
        self._info, self._timeouts, self._secret = info, timeouts, secret
        self._started = self._heard = asyncio.get_running_loop().time()
        self.assembly = Assembly(info, secret)

    def deadline(self) -> Deadline:
        """Bounds the next wait: by the first token, the next one or the whole call, whichever is nearest."""
        if self.assembly.finished:
            waited, at = "the end of the answer", self._heard + min(_CLOSING_S, self._timeouts.between_tokens_s)
        elif self.assembly.spoke:
            waited, at = "the next token", self._heard + self._timeouts.between_tokens_s
        else:
            waited, at = "the first token", self._started + self._timeouts.first_token_s
        if (whole := self._started + self._timeouts.total_s) < at:
            waited, at = "the whole answer", whole
        return Deadline(at, f"{self._info.name} took too long for {waited}")

    async def read(self, response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
        """The texts of the answer's chunks, none empty. Ends only on a whole answer."""
        if response.status != 200:
            raise await refusal(self._info.name, response, self._secret, self._page)
        if response.content_type.endswith("json"):
            if text := self.assembly.add(self._parse((await self._page(response)).decode("utf-8", "replace"))):
                yield text
        elif response.content_type != "text/event-stream":
            raise UpstreamError(f"{self._info.name} answered with {response.content_type}, not with events")
        else:
            parser = SseParser()
            done = False
            while not done:
                chunk = await self._next(response)
                for data in parser.feed(chunk) if chunk else parser.close():
                    if data.strip() == "[DONE]":
                        done = True
                        break
                    if text := self._hear(data):
                        yield text
                if not chunk:
                    break
            if done:
                return
        if not self.assembly.finished:
            raise UpstreamError(f"{self._info.name} broke off before the end of its answer")

    async def _next(self, response: aiohttp.ClientResponse) -> bytes:
        """The next bytes; empty at the end, and where only the usage of a finished answer fails to come."""
        try:
            async with self.deadline():
                return await response.content.readany()
        except (aiohttp.ClientError, UpstreamTimeout):
            if self.assembly.finished:
                return b""
            raise

    def _hear(self, data: str) -> str:
        text = self.assembly.add(self._parse(data))
        self._heard = asyncio.get_running_loop().time()
        return text

    def _parse(self, data: str) -> Any:
        try:
            return parse(data)
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{self._info.name} sent an event that is not JSON") from error

    async def _page(self, response: aiohttp.ClientResponse) -> bytes:
        pieces: list[bytes] = []
        size_bytes = 0
        while True:
            async with self.deadline():
                piece = await response.content.readany()
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            size_bytes += len(piece)
            if size_bytes > _MAX_BODY_BYTES:
                raise UpstreamError(f"{self._info.name} answered with more than {_MAX_BODY_BYTES} bytes")
