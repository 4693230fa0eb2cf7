"""Both wires as the tests of what they share see them: a server of each, and what it can be made to say."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from app.services.gateway.anthropic import AnthropicProvider
from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.provider import Timeouts
from graphs.types import Message, ModelRequest
from tests import fake_anthropic, fake_openai
from tests.fake_anthropic import FakeAnthropic
from tests.fake_openai import Answer, FakeOpenAi

ASK = ModelRequest(messages=(Message("user", "Say hello"),))


@dataclass(frozen=True)
class Wire:
    """`pieces` are the events of a whole answer, "Hello, world", each as it is sent; `half` are those in which half of
    it has been said, `whole` those after which only usage or nothing follows."""

    name: str
    fake: Callable[[Answer], AbstractAsyncContextManager[FakeOpenAi | FakeAnthropic]]
    event: Callable[[Any], bytes]
    pieces: tuple[bytes, ...]
    half: bytes
    whole: bytes
    ping: bytes
    more: bytes
    calls: Callable[[str | None, str], bytes]
    """An answer that calls a tool: its name, its arguments."""
    error: Callable[[str, str], Mapping[str, Any]]
    """An error as it is sent in a body or an event: its code, its message."""
    codes: tuple[str, str, str]
    """For: overloaded, too many requests, a refused key."""

    @property
    def greeting(self) -> bytes:
        return b"".join(self.pieces)

    def failure(self, code: int, message: str = "no") -> Mapping[str, Any]:
        return self.error(self.codes[code], message)

    @asynccontextmanager
    async def talks(
        self, answer: Answer, timeouts: Timeouts | None = None
    ) -> AsyncIterator[tuple[FakeOpenAi | FakeAnthropic, OpenAiProvider | AnthropicProvider]]:
        async with self.fake(answer) as fake:
            provider = fake.provider(timeouts)
            try:
                yield fake, provider
            finally:
                await provider.close()


def _openai_calls(name: str | None, arguments: str) -> bytes:
    named = {} if name is None else {"name": name}
    return fake_openai.events(fake_openai.calling(arguments=arguments, **named))


def _anthropic_calls(name: str | None, arguments: str) -> bytes:
    called = fake_anthropic.calls(name or "", arguments)
    return fake_anthropic.events(fake_anthropic.start(), *called, *fake_anthropic.stops("tool_use"))


_OPENAI = tuple(map(fake_openai.event, fake_openai.GREETING))
_ANTHROPIC = tuple(map(fake_anthropic.event, fake_anthropic.GREETING))

OPENAI = Wire(
    name="openai",
    fake=fake_openai.fake_openai,
    event=fake_openai.event,
    pieces=(*_OPENAI, b"data: [DONE]\n\n"),
    half=b"".join(_OPENAI[:3]),
    whole=b"".join(_OPENAI[:5]),
    ping=b": ping\n\n",
    more=fake_openai.event(fake_openai.chunk("more ")),
    calls=_openai_calls,
    error=lambda code, message: {"error": {"message": message, "code": code}},
    codes=("server_overloaded", "rate_limit_exceeded", "invalid_api_key"),
)
ANTHROPIC = Wire(
    name="anthropic",
    fake=fake_anthropic.fake_anthropic,
    event=fake_anthropic.event,
    pieces=_ANTHROPIC,
    half=b"".join(_ANTHROPIC[:5]),
    whole=b"".join(_ANTHROPIC[:-1]),
    ping=fake_anthropic.event(fake_anthropic.PING),
    more=fake_anthropic.event(fake_anthropic.delta("more ")),
    calls=_anthropic_calls,
    error=fake_anthropic.error,
    codes=("overloaded_error", "rate_limit_error", "authentication_error"),
)
WIRES = (OPENAI, ANTHROPIC)

on_both_wires = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
