"""Both wires against an upstream that fails in every way seen in practice: an error, never half an answer."""

from collections.abc import Callable, Mapping
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
from graphs.types import Delta
from tests import fake_anthropic
from tests.fake_openai import KEY, SHORT, Answer, drips, never, sends, sends_json
from tests.services.gateway.wires import ANTHROPIC, ASK, OPENAI, WIRES, Wire, on_both_wires

HTML = b"<html><body>502 Bad Gateway</body></html>"
OVERLOADED, RATE_LIMITED, REFUSED = range(3)

Broken = Mapping[str, tuple[Callable[[Wire], Answer], type[UpstreamError]]]
ANY: Broken = {
    "the connection breaks in half an answer": (lambda wire: sends(wire.half, cut=True), UpstreamError),
    "the body ends in half an answer": (lambda wire: sends(wire.half), UpstreamError),
    "the body is empty": (lambda _: sends(b""), UpstreamError),
    "only pings come": (lambda wire: sends(wire.ping * 9), UpstreamError),
    "an error inside a 200": (lambda wire: sends(wire.event(wire.failure(OVERLOADED))), UpstreamError),
    "a rate limit after some text": (
        lambda wire: sends(wire.half, wire.event(wire.failure(RATE_LIMITED))),
        UpstreamRateLimited,
    ),
    "a refused key after some text": (
        lambda wire: sends(wire.half, wire.event(wire.failure(REFUSED))),
        UpstreamUnauthorized,
    ),
    "a number for an event": (lambda _: sends(b"data: 7\n\n"), UpstreamError),
    "text for an event": (lambda _: sends(b"data: overloaded, sorry\n\n"), UpstreamError),
    "JSON cut short": (lambda _: sends(b'data: {"choices": [{"delta": {"con\n\n'), UpstreamError),
    "JSON nested without end": (lambda _: sends(b"data: " + b"[" * 50_000 + b"\n\n"), UpstreamError),
    "a line without end": (lambda _: sends(*[b"data: " + b"x" * 65_536] * 20), UpstreamError),
    "a page": (lambda _: sends(HTML, kind="text/html"), UpstreamError),
    "a JSON error in a 200": (lambda wire: sends_json(wire.failure(RATE_LIMITED)), UpstreamRateLimited),
    "JSON of something else": (lambda _: sends_json({"ok": True}), UpstreamError),
    "a body without end": (lambda _: sends(*[b" " * 65_536] * 80, kind="application/json"), UpstreamError),
    "no head": (lambda _: never, UpstreamTimeout),
    "a head and nothing more": (lambda _: drips(), UpstreamTimeout),
    "pings for ever": (lambda wire: drips(then=wire.ping), UpstreamTimeout),
    "one byte at a time": (lambda _: drips(b"data: {", then=b" "), UpstreamTimeout),
    "a beginning and then silence": (lambda wire: drips(wire.pieces[0]), UpstreamTimeout),
    "silence in half an answer": (lambda wire: drips(wire.half), UpstreamTimeout),
    "pings in half an answer": (lambda wire: drips(wire.half, then=wire.ping), UpstreamTimeout),
    "an answer without end": (lambda wire: drips(wire.half, then=wire.more), UpstreamTimeout),
    "tool arguments cut short": (lambda wire: sends(wire.calls("t", '{"a')), UpstreamError),
    "tool arguments of another shape": (lambda wire: sends(wire.calls("t", "[1]")), UpstreamError),
    "a tool call without a name": (lambda wire: sends(wire.calls(None, "{}")), UpstreamError),
}
OWN: Mapping[str, Broken] = {
    "openai": {
        "a listed error": (
            lambda wire: sends(wire.event([{"error": {"code": 400, "message": "bad"}}])),
            UpstreamRejected,
        ),
        "an error by its number": (lambda wire: sends(wire.event({"error": {"code": 429}})), UpstreamRateLimited),
    },
    "anthropic": {
        "a list for an event": (lambda _: sends(b"data: [{}]\n\n"), UpstreamError),
        "the other wire's answer": (lambda _: sends(OPENAI.greeting), UpstreamError),
    },
}


def broken(wire: Wire) -> dict[str, tuple[Answer, type[UpstreamError]]]:
    """Every such answer of a wire by its name, and the kind of error that it is."""
    return {name: (answer(wire), kind) for name, (answer, kind) in {**ANY, **OWN[wire.name]}.items()}


CASES = [pytest.param(wire, *case, id=f"{wire.name}: {name}") for wire in WIRES for name, case in broken(wire).items()]


@pytest.mark.parametrize(("wire", "answer", "kind"), CASES)
async def test_u03_u06_u07_u09_u11_a_broken_answer_is_an_error_and_never_a_completion(
    wire: Wire, answer: Answer, kind: type[UpstreamError]
) -> None:
    heard: list[Any] = []
    async with wire.talks(answer, SHORT if kind is UpstreamTimeout else None) as (_, provider):

        async def listen() -> None:
            async for item in provider.stream(ASK):
                heard.append(item)  # noqa: PERF401 - what came before the error counts too

        with pytest.raises(UpstreamError) as raised:
            await listen()
    assert type(raised.value) is kind
    assert all(isinstance(item, Delta) for item in heard)


async def failure_of(wire: Wire, answer: Answer) -> UpstreamError:
    async with wire.talks(answer) as (fake, provider):
        with pytest.raises(UpstreamError) as raised:
            await anext(provider.stream(ASK))
    assert len(fake.requests) == 1, "the gateway alone may try again"
    return raised.value


STATUSES = [
    (400, UpstreamRejected), (401, UpstreamUnauthorized), (402, UpstreamUnauthorized), (403, UpstreamUnauthorized),
    (404, UpstreamNotFound), (405, UpstreamRejected), (413, UpstreamTooLong), (422, UpstreamRejected),
    (302, UpstreamRejected),
    (408, UpstreamTimeout), (504, UpstreamTimeout), (409, UpstreamError), (429, UpstreamRateLimited),
    (500, UpstreamError), (502, UpstreamError), (503, UpstreamError), (529, UpstreamError),
]  # fmt: skip
PAGES = [
    b"", HTML, b'["no"]', b"\xff{",
    b'{"error": {"message": "no", "code": "some_code"}}', b'{"type": "error", "error": {"type": "a_new_error"}}',
]  # fmt: skip


@on_both_wires
@pytest.mark.parametrize(("status", "kind"), STATUSES)
@pytest.mark.parametrize("page", PAGES)
async def test_u05_every_status_maps_to_a_kind_whatever_its_body(
    wire: Wire, status: int, kind: type[UpstreamError], page: bytes
) -> None:
    moved = sends(page, status=status, kind="application/json", Location="http://127.0.0.1:9/")
    raised = await failure_of(wire, moved)
    assert type(raised) is kind
    assert str(status) in raised.message


TOO_LONG = ANTHROPIC.error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
POOR = ANTHROPIC.error("invalid_request_error", "Your credit balance is too low to access the Anthropic API.")
SPENT = fake_anthropic.error("rate_limit_error", error_code="enforced_spend_limit_reached")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(400, TOO_LONG, UpstreamTooLong), (400, POOR, UpstreamUnauthorized), (429, SPENT, UpstreamUnauthorized)],
)
async def test_u05_what_anthropics_api_tells_in_words_alone_is_understood(
    status: int, body: Any, kind: type[UpstreamError]
) -> None:
    assert type(await failure_of(ANTHROPIC, sends_json(body, status=status))) is kind


@on_both_wires
async def test_u04_a_rate_limit_says_how_long_to_wait(wire: Wire) -> None:
    raised = await failure_of(wire, sends_json(wire.failure(RATE_LIMITED), status=429, Retry_After="7"))
    assert raised.retry_after_s == 7


@on_both_wires
async def test_neither_the_key_nor_the_vendors_words_reach_the_caller(wire: Wire) -> None:
    said = wire.failure(REFUSED, f"Incorrect API key {KEY}, prompt was: Say hello")
    raised = await failure_of(wire, sends_json(said, status=401))
    assert raised.message.endswith(f"-test answered with an error (401, {wire.codes[REFUSED]})")
    assert "Say hello" in str(raised.__cause__)
    assert KEY not in repr(raised.__cause__)


@on_both_wires
@pytest.mark.parametrize(
    "way",
    ["http://127.0.0.1:{free}/?secret=1", "https://127.0.0.1:{port}", "http://no-such-host.invalid:{port}"],
    ids=["refused", "TLS", "DNS"],
)
async def test_u01_a_way_that_breaks_before_the_call_is_an_error_without_its_address(
    wire: Wire, way: str, unused_tcp_port: int
) -> None:
    async with wire.fake(never) as fake:
        port = fake.url.rsplit(":", 1)[1]
        fake.url = way.format(port=port, free=unused_tcp_port)
        provider = fake.provider(SHORT)
        with pytest.raises(UpstreamError) as raised:
            await anext(provider.stream(ASK))
        await provider.close()
    assert fake.requests == []
    assert not any(told in raised.value.message for told in ("127.0.0.1", "invalid", "secret", port))
