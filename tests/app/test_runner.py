"""The door to the graphs: what a run streams, what it leaves behind, and what happens when something ends early."""

import asyncio
from pathlib import Path

import pytest

from app.records import RunRequest
from app.services.gateway.scripted import Say
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import Conflict, Forbidden, Invalid, Missing, UpstreamError
from graphs.refusal import REFUSAL
from graphs.types import Passage
from tests.app.lite import ANN, BOB, EVE, lite

TEXT = "The server listens on port 8000. Set the variable PORT to change it."
PASSAGE = Passage("c1", "install", "Install", TEXT, 40, 40 + len(TEXT), 0.9, "docs", "Run")


async def test_chat_streams_its_answer_and_keeps_the_conversation(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, ["Hello Ann.", "You said hi."], embedder) as bench:
        first = await bench.ask("hi")
        assert first.types[0] == "run.started"
        assert first.types[-1] == "run.completed"
        assert first.text == "Hello Ann."
        conversation = first.events[0].data["conversationId"]
        await bench.ask("what did I say?", conversation_id=conversation)
        contents = [message.content for message in list(bench.gateway.requests)[1].messages]
        assert contents[1:] == ["hi", "Hello Ann.", "what did I say?"]


async def test_rag_cites_the_passage_that_supports_the_answer(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, ["The server listens on port 8000."], embedder, passages=[PASSAGE]) as bench:
        answer = await bench.ask("Which port?", mode="rag")
        card = await bench.runner.card(ANN, answer.run_id)
        (citation,) = card.citations
        assert TEXT[citation.start - 40 : citation.end - 40] == "The server listens on port 8000."
        assert (card.validation, card.answered, card.index_version) == ("supported", True, "docs@7")
        assert answer.types == [
            "run.started",
            "retrieval.completed",
            *["message.delta"] * answer.types.count("message.delta"),
            "validation.completed",
            "run.completed",
        ]


async def test_rag_without_passages_declines_and_asks_no_model(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [], embedder) as bench:
        answer = await bench.ask("Which port?", mode="rag")
        card = await bench.runner.card(ANN, answer.run_id)
        assert (answer.text, card.answered, card.validation) == (REFUSAL, False, "no_answer")


async def test_a_run_leaves_a_complete_row_spans_and_events(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, ["The server listens on port 8000."], embedder, passages=[PASSAGE]) as bench:
        answer = await bench.ask("Which port?", mode="rag")
        row = await bench.store.runs.get(answer.run_id, "acme", "ann")
        assert row.status == "completed"
        assert row.prompt_version.startswith("rag.answer@1#")
        assert (row.model, row.model_version, row.retrieved_chunk_ids) == ("scripted", "1", ("c1",))
        assert row.graph_fingerprint
        assert row.input_tokens > 0
        assert set(row.stations) == {"screen", "reword", "retrieve", "prompt", "complete", "validate"}
        spans = await bench.store.runs.spans(answer.run_id, "acme")
        root = next(span for span in spans if span.parent_id is None)
        model = next(span for span in spans if span.kind == "model")
        station = next(span for span in spans if span.span_id == model.parent_id)
        assert (root.kind, station.name, station.parent_id) == ("run", "complete", root.span_id)
        stored = [event async for event in bench.runner.events(ANN, answer.run_id, after=2)]
        assert stored == answer.events[2:]


async def test_a_run_that_fails_after_the_model_spoke_still_pays(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    broken = Say(pieces=("Half ", "an "), error=UpstreamError("it broke off"))
    async with lite(tmp_path, [broken], embedder) as bench:
        answer = await bench.ask("hi")
        assert answer.types[-1] == "run.failed"
        card = await bench.runner.card(ANN, answer.run_id)
        assert card.error is not None
        assert (card.status, card.error.code, card.answer) == ("failed", "upstream_broke_off", "")
        assert card.usage.output_tokens > 0
        conversation = await bench.store.conversations.messages(card.conversation_id, "acme", "ann", 10)
        assert [message.role for message in conversation] == ["user"]


async def test_an_unknown_failure_says_nothing_of_its_cause(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [ValueError("sk-secret in a library's words")], embedder) as bench:
        answer = await bench.ask("hi")
        assert "secret" not in str(answer.events[-1])
        card = await bench.runner.card(ANN, answer.run_id)
        assert card.error is not None
        assert card.error.code == "internal_error"


async def test_a_run_that_nobody_reads_is_cancelled_and_settled(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    never = Say(pieces=("x",), wait=asyncio.Event())
    async with lite(tmp_path, [never], embedder, reattach_grace_s=0.05) as bench:
        run_id = await bench.runner.start(ANN, RunRequest("hi"))
        while (await bench.runner.card(ANN, run_id)).status == "running":
            await asyncio.sleep(0.01)
        assert (await bench.runner.card(ANN, run_id)).status == "cancelled"
        assert bench.gateway.provider.closed_early == 1


async def test_a_reader_may_leave_and_come_back(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    gate = asyncio.Event()
    slow = Say(pieces=("one ", "two ", "three"), wait_between=gate)
    async with lite(tmp_path, [slow], embedder) as bench:
        run_id = await bench.runner.start(ANN, RunRequest("hi"))
        seen = []
        async for event in bench.runner.events(ANN, run_id):
            seen.append(event)
            if event.type == "message.delta":
                break
        gate.set()
        seen += [event async for event in bench.runner.events(ANN, run_id, after=seen[-1].number)]
        assert [event.number for event in seen] == list(range(1, len(seen) + 1))
        assert "".join(e.data["text"] for e in seen if e.type == "message.delta") == "one two three"


async def test_stop_closes_the_upstream_and_ends_the_stream(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    slow = Say(pieces=("one ", "two"), wait_between=asyncio.Event())
    async with lite(tmp_path, [slow], embedder) as bench:
        run_id = await bench.runner.start(ANN, RunRequest("hi"))
        types = []
        async for event in bench.runner.events(ANN, run_id):
            types.append(event.type)
            if event.type == "message.delta":
                await bench.runner.cancel(ANN, run_id)
        assert types[-1] == "run.failed"
        assert bench.gateway.provider.closed_early == 1
        with pytest.raises(Conflict):
            await bench.runner.cancel(ANN, run_id)


async def test_a_run_that_takes_too_long_ends_as_a_timeout(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    never = Say(pieces=("x",), wait=asyncio.Event())
    async with lite(tmp_path, [never], embedder, run_timeout_s=0.05) as bench:
        answer = await bench.ask("hi")
        assert answer.events[-1].data["error"]["code"] == "upstream_timeout"


async def test_closing_the_runner_writes_down_what_was_in_flight(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    never = Say(pieces=("x",), wait=asyncio.Event())
    async with lite(tmp_path, [never], embedder) as bench:
        run_id = await bench.runner.start(ANN, RunRequest("hi"))
        await bench.runner.close()
        card = await bench.runner.card(ANN, run_id)
        assert card.error is not None
        assert card.error.code == "interrupted"


async def test_another_user_or_tenant_cannot_see_read_or_stop_a_run(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, ["Hello."], embedder) as bench:
        answer = await bench.ask("hi")
        for stranger in (BOB, EVE):
            with pytest.raises(Missing):
                await bench.runner.card(stranger, answer.run_id)
            with pytest.raises(Missing):
                [event async for event in bench.runner.events(stranger, answer.run_id)]
            with pytest.raises(Missing):
                await bench.runner.cancel(stranger, answer.run_id)
            with pytest.raises(Missing):
                conversation = answer.events[0].data["conversationId"]
                await bench.runner.start(stranger, RunRequest("hi", conversation_id=conversation))


@pytest.mark.parametrize("message", ["", "   ", "x" * 8_001])
async def test_a_bad_message_starts_nothing(tmp_path: Path, embedder: MiniLmEmbedder, message: str) -> None:
    async with lite(tmp_path, [], embedder) as bench:
        with pytest.raises(Invalid) as refused:
            await bench.runner.start(ANN, RunRequest(message))
        assert refused.value.field == "message"
        assert not (await bench.store.conversations.list("acme", "ann")).items


async def test_an_unknown_model_or_mode_starts_nothing(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [], embedder) as bench:
        with pytest.raises(Missing):
            await bench.runner.start(ANN, RunRequest("hi", model="gpt-nothing"))
        with pytest.raises(Invalid):
            await bench.runner.start(ANN, RunRequest("hi", mode="dream"))  # type: ignore[arg-type]
        assert not (await bench.store.conversations.list("acme", "ann")).items


async def test_a_key_without_the_scope_runs_nothing(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, [], embedder) as bench:
        reader = type(ANN)("acme", "ann", frozenset({"documents"}))
        with pytest.raises(Forbidden):
            await bench.runner.start(reader, RunRequest("hi"))


async def test_a_secret_in_an_answer_never_reaches_the_stream(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    card_number = "4111 1111 1111 1111"
    pieces = tuple(f"Pay with {card_number} now.")
    async with lite(tmp_path, [Say(pieces=pieces)], embedder) as bench:
        answer = await bench.ask("hi")
        assert card_number not in answer.text
        assert card_number not in (await bench.runner.card(ANN, answer.run_id)).answer
