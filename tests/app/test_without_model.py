"""What a run answers when models fail: a safe answer that is marked, a continuation that is marked, or an error."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.console.advice import advice
from app.records import AnswerCard
from app.services.gateway.extractive import ExtractiveAnswerer
from app.services.gateway.meter import Caps, MeteredGateway, RunLimitReached
from app.services.gateway.scripted import Say
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import UpstreamError, UpstreamTimeout
from graphs.types import Passage, ToolProposal, Usage
from tests.app.lite import ANN, Answer, Lite, lite
from tests.services.gateway.chain import ASK, chain, scripted
from tests.services.gateway.test_gateway import Trace

TEXT = "The server listens on port 8000. Set the variable PORT to change it."
PASSAGE = Passage("c1", "install", "Install", TEXT, 40, 40 + len(TEXT), 0.9, "docs", "Run")
SORRY = "I cannot answer just now. A person has been told."
DOWN = UpstreamError("503")


def failing(*names: str) -> dict[str, Any]:
    return {name: lambda _: DOWN for name in names}


async def card_of(bench: Lite, answer: Answer) -> AnswerCard:
    return await bench.runner.card(ANN, answer.run_id)


async def escalations(bench: Lite) -> list[tuple[str, str, str]]:
    return [(row.run_id, row.reason, row.detail) for row in (await bench.store.escalations.list("acme")).items]


async def test_a_rag_run_that_no_model_serves_quotes_its_passages_with_citations_and_tells_a_person_once(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    route = chain(failing("a", "b"), beside={"extractive": ExtractiveAnswerer(embedder)}, retries=1)
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY, passages=[PASSAGE]) as bench:
        answer = await bench.ask("Which port does the server listen on?", mode="rag")
        card = await card_of(bench, answer)
        assert answer.types[-1] == "run.completed"
        assert "port 8000" in card.answer
        assert (card.without_model, card.model, card.validation) == (True, "extractive", "supported")
        assert [citation.chunk_id for citation in card.citations] == ["c1"]
        assert await escalations(bench) == [(answer.run_id, "no model answered", "upstream_error")]
    # The floor is no model's answer: it is not reserved, not booked, not billed.
    assert {line.charge.model for line in route.books.lines} == {"a", "b"}
    assert (card.usage.calls, card.usage.cost_usd_micros) == (4, 0)


async def test_a_chat_that_no_model_serves_gets_the_configured_sentence(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    route = chain({"a": lambda _: UpstreamTimeout("late")}, beside={"extractive": ExtractiveAnswerer(embedder)})
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY) as bench:
        answer = await bench.ask("hello")
        card = await card_of(bench, answer)
        assert (answer.text, card.answer, card.without_model) == (SORRY, SORRY, True)
        assert (card.model, card.provider) == ("none", "pilothouse")
        assert card.usage.cost_usd_micros == route.books.bills[0].cost_micros > 0  # the prompt that was given up on
        assert await escalations(bench) == [(answer.run_id, "no model answered", "upstream_timeout")]


async def test_a_floor_that_fails_too_leaves_the_sentence(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    route = chain(failing("a"), beside={"extractive": scripted("extractive", [DOWN])})
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY, passages=[PASSAGE]) as bench:
        answer = await bench.ask("Which port?", mode="rag")
        assert answer.text == SORRY
        assert len(await escalations(bench)) == 1


async def test_all_breakers_open_is_answered_as_fast_as_it_is_known(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    route = chain(failing("a", "b"))
    for target in route.targets.values():
        target.breaker.trip(0, route.clock())
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY) as bench:
        answer = await asyncio.wait_for(bench.ask("hello"), 20)
        assert (answer.text, route.books.lines) == (SORRY, [])
        assert await escalations(bench) == [(answer.run_id, "no model answered", "all_unavailable")]


async def test_a_run_that_a_model_serves_in_the_end_is_nobodys_alarm(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    route = chain({**failing("a"), "b": ["Hello Ann."]})
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY) as bench:
        card = await card_of(bench, await bench.ask("hello"))
        assert (card.answer, card.without_model, card.model) == ("Hello Ann.", False, "b")
        assert card.reasons == ("in the route's order: a, b",)
        assert await escalations(bench) == []


async def test_half_an_answer_is_never_topped_up_with_a_safe_one(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    route = chain({"a": [Say(("Half ", "an "), error=DOWN)], "b": ["Hello"]})
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY) as bench:
        answer = await bench.ask("hello")
        card = await card_of(bench, answer)
        assert answer.types[-1] == "run.failed"
        assert card.error is not None
        assert (card.error.code, card.without_model) == ("upstream_broke_off", False)
        assert SORRY not in answer.text
        assert route.asked("b") == 0
        assert await escalations(bench) == [(answer.run_id, "the run failed", "upstream_broke_off")]


async def test_a_continuation_is_an_event_where_it_begins_and_named_on_the_card(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    route = chain({"a": [Say(("Hello ", "dear "), error=DOWN)], "b": ["Ann."]}, on_broken_stream="continue")
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY) as bench:
        answer = await bench.ask("hello")
        card = await card_of(bench, answer)
        told = [event for event in answer.events if event.type == "message.continued"]
        assert [event.data for event in told] == [{"model": "b"}]
        assert (card.answer, card.continued_by, card.model) == ("Hello dear Ann.", ("b",), "b")
        assert card.usage.calls == 2
        told_to_people = advice(card)
        assert told_to_people is not None
        assert (told_to_people.code, told_to_people.detail) == ("continued", "b")
        assert card.usage.cost_usd_micros == sum(bill.cost_micros for bill in route.books.bills)
        stored = [event.type async for event in bench.runner.events(ANN, answer.run_id)]
        assert stored == answer.types


async def test_a_call_for_json_gets_no_sentence_in_its_place() -> None:
    """A tool's arguments are asked for so; a polite sentence would be none."""
    route = chain(failing("a"))
    meter = MeteredGateway(route.gateway, Trace(), safe_answer=SORRY)
    with pytest.raises(UpstreamError):
        await meter.complete(replace(ASK, response_schema={"type": "object"}))
    assert meter.failed_over is None


async def test_r14_a_run_may_use_no_more_than_its_caps() -> None:
    """A model that asks for a tool again and again: the caps end it, whatever its steps would allow."""
    spent = Usage(400, 100)
    for caps in (Caps(tokens=1_500), Caps(cost_micros=3 * (400 * 2 + 100 * 8))):
        route = chain({"a": lambda _: Say(("again",), usage=spent)})
        meter = MeteredGateway(route.gateway, Trace(), caps=caps)
        for _ in range(3):
            await meter.complete(ASK)
        with pytest.raises(RunLimitReached):
            await meter.complete(ASK)
        assert route.asked("a") == 3


@pytest.mark.parametrize("fails", [False, True])
async def test_a_tool_loop_that_loses_its_model_half_way_ends_safely(
    tmp_path: Path, embedder: MiniLmEmbedder, fails: bool
) -> None:
    adds = ToolProposal("x", "calculator", {"expression": "3 + 4"})
    second: Any = DOWN if fails else "It is 7."
    route = chain({"a": [Say(tool_calls=(adds,)), second]})
    async with lite(tmp_path, route.gateway, embedder, safe_answer=SORRY) as bench:
        answer = await bench.ask("What is 3 + 4?", mode="agent")
        card = await card_of(bench, answer)
        assert (card.answer, card.without_model) == ((SORRY, True) if fails else ("It is 7.", False))
        assert [tool.status for tool in card.tools] == ["ok"]
        assert len(await escalations(bench)) == int(fails)
