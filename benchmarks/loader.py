"""Calls a chat endpoint from many connections at once and times each call; raw sockets, so that it costs little itself."""

import asyncio
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

BODY: Final = {"messages": [{"role": "user", "content": "Say a few words about the harbour."}], "max_tokens": 64}


@dataclass(frozen=True, slots=True)
class Target:
    """Something that speaks chat completions. `key` is a bearer token, `model` the name to ask for."""

    name: str
    port: int
    path: str = "/v1/chat/completions"
    model: str = "fake"
    key: str = "none"


@dataclass(frozen=True, slots=True)
class Load:
    """What one round gave. Times are milliseconds; `first_ms` is the time to the first event of a stream."""

    rate: float
    p50_ms: float
    p99_ms: float
    first_ms: float
    failed: int


def request_bytes(target: Target, *, stream: bool, content: Mapping[str, Any] | None = None) -> bytes:
    asked = BODY | {"model": target.model, "stream": stream} if content is None else content
    body = json.dumps(asked, separators=(",", ":")).encode()
    head = (
        f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\nauthorization: Bearer {target.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Caller(asyncio.Protocol):
    """One connection that calls again as soon as an answer is whole."""

    def __init__(self, request: bytes, until: float, done: "asyncio.Future[None]", most: int) -> None:
        self._request, self._until, self._done, self._most = request, until, done, most
        self.times: list[float] = []
        self.firsts: list[float] = []
        self.failed = 0
        self._held = b""
        self._first: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._call()

    def _call(self) -> None:
        self._held, self._first = b"", None
        self._begun = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._first is None and b"data: " in self._held:
            self._first = time.perf_counter()
        if not self._is_whole():
            return
        now = time.perf_counter()
        self.times.append(now - self._begun)
        self.firsts.append((self._first or now) - self._begun)
        self.failed += not self._held.startswith(b"HTTP/1.1 200") or b'"error"' in self._held
        if now >= self._until or len(self.times) >= self._most:
            self._transport.close()
        else:
            self._call()

    def _is_whole(self) -> bool:
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return False
        lower = head.lower()
        if (at := lower.find(b"content-length:")) >= 0:
            return len(body) >= int(lower[at + 15 :].split(b"\r\n", 1)[0])
        return body.endswith(b"0\r\n\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def load(
    target: Target,
    *,
    at_once: int,
    seconds: float,
    stream: bool,
    most: int = 1 << 60,
    body: Mapping[str, Any] | None = None,
) -> Load:
    """Call for so long, or until every connection has made `most` calls. `body` in place of a chat completion's."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    callers: list[_Caller] = []
    waits: list[asyncio.Future[None]] = []
    for _ in range(at_once):
        done: asyncio.Future[None] = loop.create_future()
        caller = _Caller(request_bytes(target, stream=stream, content=body), began + seconds, done, most)
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", target.port)
        callers.append(caller)
        waits.append(done)
    await asyncio.wait(waits, timeout=seconds + 30)
    took_s = time.perf_counter() - began
    times = sorted(value for caller in callers for value in caller.times)
    firsts = [value for caller in callers for value in caller.firsts]
    if not times:
        return Load(0.0, float("nan"), float("nan"), float("nan"), at_once)
    return Load(
        rate=len(times) / took_s,
        p50_ms=statistics.median(times) * 1e3,
        p99_ms=times[min(len(times) - 1, int(0.99 * len(times)))] * 1e3,
        first_ms=statistics.median(firsts) * 1e3,
        failed=sum(caller.failed for caller in callers),
    )
