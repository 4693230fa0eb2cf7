"""The provider against an upstream that fails in every way seen in practice: an error, never half an answer."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.services.gateway.anthropic import AnthropicProvider
from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.server import ModelServer
from graphs.errors import (
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)
from graphs.types import Delta, Message, ModelRequest
from tests.fake_openai import (
    GREETING,
    KEY,
    SHORT,
    Answer,
    calling,
    chunk,
    drips,
    event,
    events,
    fake_openai,
    never,
    sends,
    sends_json,
)

ASK = ModelRequest(messages=(Message("user", "Say hello"),))
HTML = b"<html><body>502 Bad Gateway</body></html>"
HALF = GREETING[:3]
RATE_LIMIT = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}

BROKEN: Mapping[str, tuple[Answer, type[UpstreamError]]] = {
    "the connection breaks in half an answer": (sends(events(*HALF, done=False), cut=True), UpstreamError),
    "the body ends in half an answer": (sends(events(*HALF, done=False)), UpstreamError),
    "the body is empty": (sends(b""), UpstreamError),
    "only comments come": (sends(b": ping\n\n" * 9), UpstreamError),
    "an error inside a 200": (sends(event({"error": {"message": "overloaded"}})), UpstreamError),
    "an error after some text": (sends(events(*HALF, {"error": {"code": 429}})), UpstreamRateLimited),
    "a listed error": (sends(event([{"error": {"code": 400, "message": "bad"}}])), UpstreamRejected),
    "a number for an event": (sends(event(7)), UpstreamError),
    "text for an event": (sends(b"data: overloaded, sorry\n\n"), UpstreamError),
    "JSON cut short": (sends(b'data: {"choices": [{"delta": {"con\n\n'), UpstreamError),
    "JSON nested without end": (sends(b"data: " + b"[" * 50_000 + b"\n\n"), UpstreamError),
    "a line without end": (sends(*[b"data: " + b"x" * 65_536] * 20), UpstreamError),
    "a page": (sends(HTML, kind="text/html"), UpstreamError),
    "a JSON error in a 200": (sends_json(RATE_LIMIT), UpstreamRateLimited),
    "JSON of something else": (sends_json({"ok": True}), UpstreamError),
    "a body without end": (sends(*[b" " * 65_536] * 80, kind="application/json"), UpstreamError),
    "no head": (never, UpstreamTimeout),
    "a head and nothing more": (drips(), UpstreamTimeout),
    "comments for ever": (drips(then=b": ping\n\n"), UpstreamTimeout),
    "one byte at a time": (drips(b"data: {", then=b" "), UpstreamTimeout),
    "a role and then silence": (drips(event(GREETING[0])), UpstreamTimeout),
    "silence in half an answer": (drips(events(*HALF, done=False)), UpstreamTimeout),
    "comments in half an answer": (drips(events(*HALF, done=False), then=b": ping\n\n"), UpstreamTimeout),
    "an answer without end": (drips(events(*HALF, done=False), then=event(chunk("more "))), UpstreamTimeout),
    "tool arguments cut short": (sends(events(calling(name="t", arguments='{"a'))), UpstreamError),
    "tool arguments of another shape": (sends(events(calling(name="t", arguments="[1]"))), UpstreamError),
    "a tool call without a name": (sends(events(calling(arguments="{}"))), UpstreamError),
}


@pytest.mark.parametrize(("answer", "error"), BROKEN.values(), ids=BROKEN.keys())
async def test_u03_u06_u07_u09_u11_a_broken_answer_is_an_error_and_never_a_completion(
    answer: Answer, error: type[UpstreamError]
) -> None:
    heard: list[Any] = []

    async def listen() -> None:
        async for item in provider.stream(ASK):
            heard.append(item)  # noqa: PERF401 - what came before the error counts too

    async with fake_openai(answer) as fake:
        provider = fake.provider(SHORT if error is UpstreamTimeout else None)
        with pytest.raises(UpstreamError) as raised:
            await listen()
        await provider.close()
    assert type(raised.value) is error
    assert all(isinstance(item, Delta) for item in heard)


async def failure_of(answer: Answer) -> UpstreamError:
    async with fake_openai(answer) as fake:
        provider = fake.provider()
        with pytest.raises(UpstreamError) as raised:
            await anext(provider.stream(ASK))
        await provider.close()
    assert len(fake.requests) == 1, "the gateway alone may try again"
    return raised.value


STATUSES = [
    (400, UpstreamRejected), (401, UpstreamUnauthorized), (403, UpstreamUnauthorized), (404, UpstreamNotFound),
    (402, UpstreamUnauthorized), (405, UpstreamRejected), (413, UpstreamTooLong), (422, UpstreamRejected),
    (302, UpstreamRejected),
    (408, UpstreamTimeout), (504, UpstreamTimeout), (409, UpstreamError), (429, UpstreamRateLimited),
    (500, UpstreamError), (502, UpstreamError), (503, UpstreamError), (529, UpstreamError),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error"), STATUSES)
@pytest.mark.parametrize("page", [b"", HTML, b'{"error": {"message": "no", "code": "some_code"}}', b'["no"]', b"\xff{"])
async def test_u05_every_status_maps_to_a_kind_whatever_its_body(
    status: int, error: type[UpstreamError], page: bytes
) -> None:
    raised = await failure_of(sends(page, status=status, kind="application/json", Location="http://127.0.0.1:9/"))
    assert type(raised) is error
    assert str(status) in raised.message


async def test_u04_a_rate_limit_says_how_long_to_wait() -> None:
    raised = await failure_of(sends_json({}, status=429, Retry_After="7"))
    assert raised.retry_after_s == 7


async def test_neither_the_key_nor_the_vendors_words_reach_the_caller() -> None:
    said = {"error": {"message": f"Incorrect API key {KEY}, prompt was: Say hello", "code": "invalid_api_key"}}
    raised = await failure_of(sends_json(said, status=401))
    assert raised.message == "gpt-test answered with an error (401, invalid_api_key)"
    assert "Say hello" in str(raised.__cause__)
    assert KEY not in repr(raised.__cause__)


async def test_u01_a_server_that_cannot_be_reached_is_an_error_without_its_address(unused_tcp_port: int) -> None:
    async with fake_openai(never) as fake:
        fake.url = f"http://127.0.0.1:{unused_tcp_port}/?secret=1"
        provider = fake.provider()
        with pytest.raises(UpstreamError) as raised:
            await anext(provider.stream(ASK))
        await provider.close()
    assert "127.0.0.1" not in raised.value.message
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("speaks", [OpenAiProvider, AnthropicProvider])
@pytest.mark.parametrize("way", ["https://127.0.0.1:{port}", "http://no-such-host.invalid:{port}"], ids=["TLS", "DNS"])
async def test_u01_a_way_that_breaks_before_the_call_is_an_error(speaks: Any, way: str) -> None:
    async with fake_openai(never) as fake:
        port = fake.url.rsplit(":", 1)[1]
        provider = speaks(fake.provider().info, ModelServer(way.format(port=port), timeouts=SHORT))
        with pytest.raises(UpstreamError) as raised:
            await anext(provider.stream(ASK))
        await provider.close()
    assert fake.requests == []
    assert port not in raised.value.message
