"""Anthropic's wire against an upstream that fails in every way seen in practice: an error, never half an answer."""

from collections.abc import Mapping
from typing import Any

import pytest

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
from tests.fake_anthropic import (
    GREETING,
    PING,
    block,
    calls,
    delta,
    error,
    event,
    events,
    fake_anthropic,
    start,
    stops,
)
from tests.fake_openai import KEY, SHORT, Answer, drips, never, sends, sends_json

ASK = ModelRequest(messages=(Message("user", "Say hello"),))
HTML = b"<html><body>502 Bad Gateway</body></html>"
HALF = GREETING[:5]
NAMELESS = (start(), block(type="tool_use", id="t1", input={}), *stops("tool_use"))

BROKEN: Mapping[str, tuple[Answer, type[UpstreamError]]] = {
    "the connection breaks in half an answer": (sends(events(*HALF), cut=True), UpstreamError),
    "the body ends in half an answer": (sends(events(*HALF)), UpstreamError),
    "the body is empty": (sends(b""), UpstreamError),
    "only pings come": (sends(events(*[PING] * 9)), UpstreamError),
    "an error inside a 200": (sends(event(error("overloaded_error"))), UpstreamError),
    "a rate limit after some text": (sends(events(*HALF, error("rate_limit_error"))), UpstreamRateLimited),
    "a refused key after some text": (sends(events(*HALF, error("authentication_error"))), UpstreamUnauthorized),
    "a number for an event": (sends(b"data: 7\n\n"), UpstreamError),
    "a list for an event": (sends(b"data: [{}]\n\n"), UpstreamError),
    "text for an event": (sends(b"data: overloaded, sorry\n\n"), UpstreamError),
    "JSON cut short": (sends(b'data: {"type": "content_block_delta", "del\n\n'), UpstreamError),
    "JSON nested without end": (sends(b"data: " + b"[" * 50_000 + b"\n\n"), UpstreamError),
    "a line without end": (sends(*[b"data: " + b"x" * 65_536] * 20), UpstreamError),
    "a page": (sends(HTML, kind="text/html"), UpstreamError),
    "a JSON error in a 200": (sends_json(error("rate_limit_error")), UpstreamRateLimited),
    "JSON of something else": (sends_json({"ok": True}), UpstreamError),
    "OpenAI's answer": (sends(b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'), UpstreamError),
    "a body without end": (sends(*[b" " * 65_536] * 80, kind="application/json"), UpstreamError),
    "no head": (never, UpstreamTimeout),
    "a head and nothing more": (drips(), UpstreamTimeout),
    "pings for ever": (drips(then=event(PING)), UpstreamTimeout),
    "one byte at a time": (drips(b"data: {", then=b" "), UpstreamTimeout),
    "a beginning and then silence": (drips(event(start())), UpstreamTimeout),
    "silence in half an answer": (drips(events(*HALF)), UpstreamTimeout),
    "pings in half an answer": (drips(events(*HALF), then=event(PING)), UpstreamTimeout),
    "an answer without end": (drips(events(*HALF), then=event(delta("more "))), UpstreamTimeout),
    "tool arguments cut short": (sends(events(start(), *calls("t", '{"a'), *stops("max_tokens"))), UpstreamError),
    "tool arguments of another shape": (sends(events(start(), *calls("t", "[1]"), *stops("tool_use"))), UpstreamError),
    "a tool call without a name": (sends(events(*NAMELESS)), UpstreamError),
}


@pytest.mark.parametrize(("answer", "kind"), BROKEN.values(), ids=BROKEN.keys())
async def test_u03_u06_u07_u09_u11_a_broken_answer_is_an_error_and_never_a_completion(
    answer: Answer, kind: type[UpstreamError]
) -> None:
    heard: list[Any] = []

    async def listen() -> None:
        async for item in provider.stream(ASK):
            heard.append(item)  # noqa: PERF401 - what came before the error counts too

    async with fake_anthropic(answer) as fake:
        provider = fake.provider(SHORT if kind is UpstreamTimeout else None)
        with pytest.raises(UpstreamError) as raised:
            await listen()
        await provider.close()
    assert type(raised.value) is kind
    assert all(isinstance(item, Delta) for item in heard)


async def failure_of(answer: Answer) -> UpstreamError:
    async with fake_anthropic(answer) as fake:
        provider = fake.provider()
        with pytest.raises(UpstreamError) as raised:
            await anext(provider.stream(ASK))
        await provider.close()
    assert len(fake.requests) == 1, "the gateway alone may try again"
    return raised.value


STATUSES = [
    (400, UpstreamRejected), (401, UpstreamUnauthorized), (402, UpstreamUnauthorized), (403, UpstreamUnauthorized),
    (404, UpstreamNotFound), (413, UpstreamTooLong), (422, UpstreamRejected), (302, UpstreamRejected),
    (408, UpstreamTimeout), (504, UpstreamTimeout), (409, UpstreamError), (429, UpstreamRateLimited),
    (500, UpstreamError), (502, UpstreamError), (503, UpstreamError), (529, UpstreamError),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind"), STATUSES)
@pytest.mark.parametrize("page", [b"", HTML, b'{"type": "error", "error": {"type": "a_new_error"}}', b'["no"]'])
async def test_u05_every_status_maps_to_a_kind_whatever_its_body(
    status: int, kind: type[UpstreamError], page: bytes
) -> None:
    raised = await failure_of(sends(page, status=status, kind="application/json"))
    assert type(raised) is kind
    assert str(status) in raised.message


TOO_LONG = error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
POOR = error("invalid_request_error", "Your credit balance is too low to access the Anthropic API.")
SPENT = error("rate_limit_error", error_code="enforced_spend_limit_reached")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(400, TOO_LONG, UpstreamTooLong), (400, POOR, UpstreamUnauthorized), (429, SPENT, UpstreamUnauthorized)],
)
async def test_u05_what_the_api_tells_in_words_alone_is_understood(
    status: int, body: Any, kind: type[UpstreamError]
) -> None:
    assert type(await failure_of(sends_json(body, status=status))) is kind


async def test_u04_a_rate_limit_says_how_long_to_wait() -> None:
    raised = await failure_of(sends_json(error("rate_limit_error"), status=429, Retry_After="7"))
    assert raised.retry_after_s == 7


async def test_neither_the_key_nor_the_vendors_words_reach_the_caller() -> None:
    raised = await failure_of(sends_json(error("authentication_error", f"{KEY}, prompt: Say hello"), status=401))
    assert raised.message == "claude-test answered with an error (401, authentication_error)"
    assert "Say hello" in str(raised.__cause__)
    assert KEY not in repr(raised.__cause__)


async def test_u01_a_server_that_cannot_be_reached_is_an_error_without_its_address(unused_tcp_port: int) -> None:
    async with fake_anthropic(never) as fake:
        fake.url = f"http://127.0.0.1:{unused_tcp_port}"
        provider = fake.provider()
        with pytest.raises(UpstreamError) as raised:
            await anext(provider.stream(ASK))
        await provider.close()
    assert "127.0.0.1" not in raised.value.message
