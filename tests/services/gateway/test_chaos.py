"""What happens on real sockets when a model server fails: on the typed wire of graphs and on the one that is passed on.

A route of two: the first server fails as told, the second answers. Deadlines are short only where they are the point.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest

from app.api.v1.completions import Completions
from app.api.v1.door import Asked, Streamed, Whole
from app.records import Principal
from app.services.breaker import BreakerPolicy
from app.services.gateway.attempt import LONGEST_COOL_DOWN_S, SHORT_COOL_DOWN_S
from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.provider import Timeouts
from app.services.gateway.recover import AllUnavailable, BrokenOff
from app.services.gateway.scripted import SCRIPTED
from app.services.gateway.server import ModelServer
from graphs.errors import UpstreamError, UpstreamRejected, UpstreamTimeout
from graphs.types import Completion, Continuation
from tests.services.gateway import chaos
from tests.services.gateway.chain import ACME, ASK, Chain, chain
from tests.services.gateway.chaos import HALF, Behaviour

WIRES = ["typed", "streamed", "whole"]
LONG: dict[str, Any] = {"timeout_s": 20.0}
SHORT_S = 0.4


class Plain:
    """Output patterns that find nothing."""

    def feed(self, text: str) -> str:
        return text

    def close(self) -> str:
        return ""


class Faults:
    """The route, asked on a wire; gives text and the last error's kind as a client sees them."""

    def __init__(self, route: Chain, wire: str) -> None:
        self.route, self.wire = route, wire
        no_graphs: Any = None
        self._completions = Completions(
            route.gateway, no_graphs, lambda _: Plain, max_choices=4, max_output_tokens=1_000
        )
        self.heard: list[str] = []
        self.chunks: list[dict[str, Any]] = []

    async def ask(self) -> str:
        if self.wire == "typed":
            async for item in self.route.gateway.stream(ASK, ACME):
                if not isinstance(item, Completion):
                    self.heard.append(item.text)
            return "".join(self.heard)
        body = {
            "model": "default",
            "messages": [{"role": "user", "content": "Say hello"}],
            "stream": self.wire == "streamed",
        }
        asked = Asked(ACME, Principal("acme", "ann", frozenset({"chat"})), body, "r1", "/v1/chat/completions")
        answer = await self._completions(asked)
        if isinstance(answer, Whole):
            self.heard.append(orjson.loads(answer.body)["choices"][0]["message"]["content"])
        else:
            assert isinstance(answer, Streamed)
            async for sent in answer.frames:
                for frame in sent.split(b"\n\n")[:-1]:  # what came together leaves together
                    if frame != b"data: [DONE]":
                        self.chunks.append(orjson.loads(frame.removeprefix(b"data: ")))
                        choices = self.chunks[-1]["choices"]
                        self.heard.append(choices[0]["delta"].get("content") or "" if choices else "")
        return "".join(self.heard)


def provider(name: str, url: str) -> OpenAiProvider:
    info = replace(SCRIPTED, name=name, provider="openai", version="")
    return OpenAiProvider(info, ModelServer(f"{url}/v1", timeouts=Timeouts(connect_s=0.5)))


@asynccontextmanager
async def faults(wire: str, first: Behaviour | str, second: Behaviour | None, **config: Any) -> AsyncIterator[Faults]:
    """`first` is a behaviour or a URL."""
    async with AsyncExitStack() as stack:
        whole = wire == "whole"
        urls = [first if isinstance(first, str) else await stack.enter_async_context(chaos.chaos(first))]
        if second is not None:
            urls.append(await stack.enter_async_context(chaos.chaos(whole_hello if whole else second)))
        providers = {name: provider(name, url) for name, url in zip("ab", urls, strict=False)}
        route = chain(providers, policy=BreakerPolicy(min_calls=1), **{**LONG, **config})
        stack.push_async_callback(route.gateway.close)
        yield Faults(route, wire)


whole_hello = chaos.answers(
    "200 OK",
    orjson.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "model": "m",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hello you"}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }
    ),
)


async def falls_back(faulty: Faults, *, state: str = "open", paid: bool = False) -> None:
    """The second answers whole; the first is judged and its attempt settled."""
    assert await asyncio.wait_for(faulty.ask(), 5) == "Hello you"
    assert faulty.route.books.told == [("a", "failed"), ("b", "ok")]
    assert [line.settled for line in faulty.route.books.lines] == [1, 1]
    failed, good = faulty.route.books.bills
    assert (failed.cost_micros > 0) == paid
    assert good.cost_micros == 10 * 2 + 2 * 8
    assert faulty.route.state("a") == state


@pytest.mark.parametrize("wire", WIRES)
async def test_u01_a_refused_connection_goes_to_the_next(wire: str) -> None:
    async with faults(wire, chaos.closed_port(), chaos.hello) as faulty:
        await falls_back(faulty)


async def test_u01_a_name_that_does_not_resolve_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *given: Any, **options: Any) -> Any:
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *given, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with faults("typed", "http://nowhere.invalid", chaos.hello) as faulty:
        await falls_back(faulty)


async def test_u01_a_server_that_speaks_no_tls_goes_to_the_next() -> None:
    async def in_clear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(in_clear, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, faults("typed", url, chaos.hello) as faulty:
        await falls_back(faulty)


async def test_u01_a_connection_that_is_never_made_goes_to_the_next_and_costs_nothing() -> None:
    """A host that drops what is sent to it: here a queue of connections that is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        await asyncio.sleep(0.05)
        async with faults("typed", f"http://127.0.0.1:{full.getsockname()[1]}", chaos.hello) as faulty:
            await falls_back(faulty)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("first", [chaos.reset_at_once, chaos.garbage], ids=["reset", "garbage"])
async def test_u01_a_connection_that_breaks_before_a_word_goes_to_the_next(wire: str, first: Behaviour) -> None:
    async with faults(wire, first, chaos.hello) as faulty:
        await falls_back(faulty)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("first", [chaos.silent, chaos.head_only], ids=["no head", "no token"])
async def test_u02_no_first_token_in_time_goes_to_the_next_and_the_prompt_is_paid(wire: str, first: Behaviour) -> None:
    async with faults(wire, first, chaos.hello, first_token_timeout_s=SHORT_S, timeout_s=2 * SHORT_S) as faulty:
        await falls_back(faulty, paid=True)


@pytest.mark.parametrize("wire", ["typed", "streamed"])
async def test_u03_a_dripping_server_hits_the_deadline_of_the_first_token(wire: str) -> None:
    async with faults(wire, chaos.drips, chaos.hello, first_token_timeout_s=SHORT_S) as faulty:
        await falls_back(faulty, paid=True)


@pytest.mark.parametrize("wire", ["typed", "streamed"])
async def test_u03_a_server_that_falls_silent_hits_the_deadline_between_tokens(wire: str) -> None:
    async with faults(wire, chaos.tokens_then_nothing, chaos.hello, between_tokens_timeout_s=SHORT_S) as faulty:
        with pytest.raises(BrokenOff) as raised:
            await asyncio.wait_for(faulty.ask(), 5)
        assert "the next token" in str(raised.value.__cause__)
        assert "".join(faulty.heard) == "".join(HALF)


@pytest.mark.parametrize("wire", ["typed", "streamed"])
async def test_u03_a_server_that_never_ends_hits_the_deadline_of_the_whole(wire: str) -> None:
    async with faults(wire, chaos.tokens_for_ever, chaos.hello, timeout_s=SHORT_S) as faulty:
        with pytest.raises(BrokenOff) as raised:
            await asyncio.wait_for(faulty.ask(), 5)
        assert "the whole answer" in str(raised.value.__cause__)
        assert len(faulty.heard) > 3


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("status", "falls", "state"),
    [
        (500, True, "open"),
        (502, True, "open"),
        (503, True, "open"),
        (529, True, "open"),
        (408, True, "open"),
        (409, True, "open"),
        (400, False, "closed"),
        (422, False, "closed"),
        (401, True, "open"),
        (403, True, "open"),
        (404, True, "open"),
        (413, True, "closed"),
        (429, True, "closed"),
    ],
)
async def test_u05_each_status_does_what_it_should(wire: str, status: int, falls: bool, state: str) -> None:
    async with faults(wire, chaos.failed(status), chaos.hello) as faulty:
        if falls:
            await falls_back(faulty, state=state, paid=status == 408)
            return
        with pytest.raises(UpstreamRejected):
            await faulty.ask()
        assert (faulty.route.books.told, faulty.route.state("a")) == ([("a", "failed")], state)


def in_20_s() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("header", "value", "least_s", "most_s"),
    [
        ("Retry-After", "7", 7, 7),
        ("Retry-After", in_20_s, 10, 20),
        ("retry-after-ms", "2500", 2.5, 2.5),
        ("Retry-After", "1000000000", LONGEST_COOL_DOWN_S, LONGEST_COOL_DOWN_S),
        ("Retry-After", "-5", SHORT_COOL_DOWN_S, SHORT_COOL_DOWN_S),
        ("Retry-After", "soon", SHORT_COOL_DOWN_S, SHORT_COOL_DOWN_S),
        ("X-Nothing", "0", SHORT_COOL_DOWN_S, SHORT_COOL_DOWN_S),
    ],
)
async def test_u04_a_429_rests_for_as_long_as_its_header_says_in_every_spelling(
    wire: str, header: str, value: Any, least_s: float, most_s: float
) -> None:
    told = value() if callable(value) else value
    busy = chaos.answers("429 Too Many Requests", b"{}", **{header.replace("-", "_"): told})
    async with faults(wire, busy, chaos.hello) as faulty:
        await falls_back(faulty, state="closed")
        rest_s = faulty.route.targets["a"].breaker.wait_s(faulty.route.clock())
        assert least_s <= round(rest_s, 6) <= most_s


@pytest.mark.parametrize("wire", ["typed", "streamed"])
@pytest.mark.parametrize("first", [chaos.tokens_then_reset, chaos.half_a_stream], ids=["reset", "half a stream"])
async def test_u06_an_answer_that_breaks_in_the_middle_is_an_error_with_its_cost_and_no_second_beginning(
    wire: str, first: Behaviour
) -> None:
    async with faults(wire, first, chaos.hello) as faulty:
        with pytest.raises(BrokenOff):
            await asyncio.wait_for(faulty.ask(), 5)
        assert "".join(faulty.heard) == "".join(HALF)
        (bill,) = faulty.route.books.bills
        assert (bill.outcome, bill.usage.estimated, bill.usage.output_tokens > 0) == ("failed", True, True)
        assert faulty.route.state("a") == "open"


@pytest.mark.parametrize("wire", ["typed", "streamed"])
@pytest.mark.parametrize("first", [chaos.tokens_then_reset, chaos.half_a_stream], ids=["reset", "half a stream"])
async def test_u06_with_continue_the_next_goes_on_from_there_and_the_place_is_marked(
    wire: str, first: Behaviour
) -> None:
    async with faults(wire, first, chaos.hello, on_broken_stream="continue") as faulty:
        assert await asyncio.wait_for(faulty.ask(), 5) == "".join(HALF) + "Hello you"
        assert faulty.route.books.told == [("a", "failed"), ("b", "ok")]
        if wire == "streamed":
            marks = [chunk["pilothouse"] for chunk in faulty.chunks if "pilothouse" in chunk]
            assert marks == [{"continuedBy": "b"}]


async def test_u06_the_model_that_goes_on_is_shown_what_was_said() -> None:
    bodies: list[dict[str, Any]] = []
    async with chaos.chaos(chaos.half_a_stream) as broken, chaos.chaos(chaos.hello, bodies) as good:
        providers = {"a": provider("a", broken), "b": provider("b", good)}
        route = chain(providers, on_broken_stream="continue", **LONG)
        items = [item async for item in route.gateway.stream(ASK, ACME)]
        await route.gateway.close()
    roles = [(turn["role"], turn["content"]) for turn in bodies[0]["messages"]]
    assert roles[:2] == [("user", "Say hello"), ("assistant", "".join(HALF))]
    assert roles[2][0] == "user"
    (mark,) = [item for item in items if isinstance(item, Continuation)]
    assert mark.model == "b"
    assert "Hello you".startswith(mark.text)
    assert isinstance(items[-1], Completion)
    assert items[-1].text == "".join(HALF) + "Hello you"


@pytest.mark.parametrize("wire", ["typed", "streamed"])
async def test_an_error_inside_a_200_is_the_servers_failure(wire: str) -> None:
    async with faults(wire, chaos.error_inside_a_200, chaos.hello) as faulty:
        await falls_back(faulty)


@pytest.mark.parametrize("wire", WIRES)
async def test_u11_a_page_of_html_is_the_servers_failure(wire: str) -> None:
    page = chaos.answers("200 OK", b"<html>Welcome to the captive portal</html>", "text/html")
    async with faults(wire, page, chaos.hello) as faulty:
        await falls_back(faulty)


@pytest.mark.parametrize("wire", ["typed", "streamed"])
async def test_u10_usage_that_is_no_number_is_counted_instead(wire: str) -> None:
    async with faults(wire, chaos.not_a_number, None) as faulty:
        assert await faulty.ask() == "Hello"
        (bill,) = faulty.route.books.bills
        assert (bill.outcome, bill.usage.estimated) == ("ok", True)
        assert bill.usage.input_tokens > 0
        assert bill.usage.output_tokens > 0


@pytest.mark.parametrize("wire", WIRES)
async def test_u12_when_all_servers_are_down_the_second_call_is_refused_without_asking_them(wire: str) -> None:
    async with faults(wire, chaos.closed_port(), None) as faulty:
        with pytest.raises(UpstreamError):
            await faulty.ask()
        with pytest.raises(AllUnavailable) as raised:
            await asyncio.wait_for(faulty.ask(), 5)
        assert raised.value.retry_after_s
        assert len(faulty.route.books.lines) == 1


async def test_c01_a_client_that_leaves_in_the_middle_closes_the_servers_connection() -> None:
    gone = asyncio.Event()

    async def talks(writer: asyncio.StreamWriter) -> None:
        try:
            await chaos.tokens_for_ever(writer)
        finally:
            gone.set()

    async with faults("typed", talks, None, timeout_s=60) as faulty:
        stream = faulty.route.gateway.stream(ASK, ACME)
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(gone.wait(), 5)
        await faulty.route.gateway.recovery.close()
        assert faulty.route.books.told == [("a", "cancelled")]
        assert faulty.route.state("a") == "closed"


async def test_a_deadline_says_what_was_waited_for() -> None:
    async with faults("typed", chaos.silent, None, first_token_timeout_s=0.05) as faulty:
        with pytest.raises(UpstreamTimeout, match="a took too long for the first token"):
            await faulty.ask()
