import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from app.services.escalation.store import StoreEscalation
from app.services.tools.bounded import BoundedTool, Bounds
from app.services.tools.calculator import Calculator
from app.services.tools.create_ticket import CreateTicket
from app.services.tools.current_time import CurrentTime
from app.services.tools.pick import ToolPicker
from app.services.tools.search_documents import SearchDocuments
from app.services.tools.tool import Tool, ToolCall, ToolOutput
from app.services.tools.toolbox import ScopedToolbox
from app.telemetry.spans import RunTrace
from graphs.errors import Missing, ToolRetry, UpstreamError
from graphs.taint import Reading
from graphs.types import Passage, Retrieval, ToolProposal, ToolSpec

NOW = datetime(2025, 7, 1, 22, 30, 5, tzinfo=UTC)
PASSAGE = Passage("k1", "d1", "Keys", "Rotate a key each quarter.", 0, 26, 0.9, "handbook", heading="Rotation")


class Shelf:
    def __init__(self, *passages: Passage) -> None:
        self.passages = passages
        self.asked: list[tuple[str, str | None, Mapping[str, Any] | None]] = []

    async def search(
        self,
        query: str,
        *,
        collection: str | None = None,
        limit: int = 6,
        where: Mapping[str, Any] | None = None,
        rerank: str | None = None,
    ) -> Retrieval:
        self.asked.append((query, collection, where))
        return Retrieval(self.passages[:limit], "v7", "minilm")


@dataclass
class Row:
    ticket_id: str = ""
    escalation_id: str = ""


class Book:
    """Tickets and escalations in memory; the same key gives the same ticket."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, ...]] = {}

    async def create(self, *columns: str) -> Row:
        key = columns[3]
        self.rows.setdefault(key, columns)
        return Row(ticket_id=f"ticket-{list(self.rows).index(key)}", escalation_id="e-1")


def toolbox(*tools: Tool, trace: RunTrace | None = None, **others: Any) -> ScopedToolbox:
    return ScopedToolbox(tools, tenant_id="acme", user_id="ada", run_id="r1", trace=trace or RunTrace("r1"), **others)


def proposal(name: str, **arguments: Any) -> ToolProposal:
    return ToolProposal("c1", name, arguments)


@pytest.mark.parametrize("spec", [Calculator.spec, CurrentTime.spec, SearchDocuments.spec, CreateTicket.spec])
def test_every_tools_parameters_are_a_closed_schema_with_described_fields(spec: ToolSpec) -> None:
    Draft202012Validator.check_schema(spec.parameters)
    assert spec.parameters["type"] == "object"
    assert spec.parameters["additionalProperties"] is False
    assert all(rule["description"] for rule in spec.parameters["properties"].values())


async def test_the_calculator_shows_what_it_calculated() -> None:
    box = toolbox(Calculator())
    assert (await box.run(proposal("calculator", expression=" 17 * 23 "))).content == "17 * 23 = 391"
    assert (await box.run(proposal("calculator", expression="1/3"))).content == "1/3 ≈ 0.333333333333333"
    assert (await box.run(proposal("calculator", expression="1/0"))).status == "retry"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "Tuesday, 01 July 2025, 22:30:05 in UTC (2025-07-01T22:30:05+00:00)"),
        (
            {"timezone": "Europe/Berlin"},
            "Wednesday, 02 July 2025, 00:30:05 in Europe/Berlin (2025-07-02T00:30:05+02:00)",
        ),
        ({"timezone": "tokyo"}, "Wednesday, 02 July 2025, 07:30:05 in Asia/Tokyo (2025-07-02T07:30:05+09:00)"),
        (
            {"timezone": "New York"},
            "Tuesday, 01 July 2025, 18:30:05 in America/New_York (2025-07-01T18:30:05-04:00)",
        ),
    ],
)
async def test_the_time_is_told_in_any_zone(asked: dict[str, str], told: str) -> None:
    result = await toolbox(CurrentTime(lambda: NOW)).run(proposal("current_time", **asked))
    assert (result.status, result.content) == ("ok", told)


@pytest.mark.parametrize("zone", ["Atlantis", "../../etc/passwd", "/etc/localtime", "America", "UTC+2", "ä" * 60])
async def test_an_unknown_zone_can_be_mended(zone: str) -> None:
    result = await toolbox(CurrentTime(lambda: NOW)).run(proposal("current_time", timezone=zone))
    assert result.status == "retry"
    assert "is no time zone" in result.content


async def test_a_search_brings_passages_and_the_runs_filter_is_not_the_models_to_change() -> None:
    shelf = Shelf(PASSAGE)
    box = toolbox(SearchDocuments(shelf, collection="ops", where={"lang": "en"}))
    result = await box.run(proposal("search_documents", query="key rotation"))
    assert shelf.asked == [("key rotation", "ops", {"lang": "en"})]
    assert result.passages == (PASSAGE,)
    assert result.index_version == "v7"
    assert result.content == "[1] Keys > Rotation\nRotate a key each quarter."
    assert (await box.run(proposal("search_documents", query="x", collection="other"))).status == "retry"


async def test_a_search_that_finds_nothing_says_so() -> None:
    result = await toolbox(SearchDocuments(Shelf())).run(proposal("search_documents", query="x"))
    assert (result.status, result.content) == ("ok", "No passage was found.")


async def test_the_same_call_opens_one_ticket_however_often_it_runs() -> None:
    book = Book()
    box = toolbox(CreateTicket(book))
    first = await box.run(proposal("create_ticket", title=" Printer ", body="broken"))
    again = await box.run(proposal("create_ticket", title=" Printer ", body="broken"))
    assert first == again
    assert list(book.rows.values()) == [("acme", "ada", "r1", "r1:c1", "Printer", "broken")]
    assert box.ruling(proposal("create_ticket"), Reading()).then == "ask"


class Misbehaved:
    examples = ()
    spec = ToolSpec("odd", "Behaves oddly.", {"type": "object"})

    def __init__(self, outcome: Exception | str | None) -> None:
        self.outcome = outcome

    async def run(self, call: ToolCall) -> ToolOutput:
        if self.outcome is None:
            await asyncio.sleep(3600)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return ToolOutput(self.outcome or "")


@pytest.mark.parametrize(
    ("outcome", "status", "part"),
    [
        (UpstreamError("the embedder is away"), "refused", "the embedder is away"),
        (Missing("no collection 'x'"), "refused", "no collection 'x'"),
        (ToolRetry("say more"), "retry", "say more"),
        (None, "refused", "no answer within 0.01 s"),
    ],
)
async def test_a_tools_failure_is_the_models_to_read(outcome: Any, status: str, part: str) -> None:
    result = await toolbox(BoundedTool(Misbehaved(outcome), Bounds(timeout_s=0.01))).run(proposal("odd"))
    assert result.status == status
    assert part in result.content


async def test_a_defect_in_a_tool_fails_the_run() -> None:
    trace = RunTrace("r1")
    with pytest.raises(KeyError):
        await toolbox(Misbehaved(KeyError("bug")), trace=trace).run(proposal("odd"))
    assert trace.records[0].status == "error"


async def test_a_long_output_is_cut_with_a_marker() -> None:
    result = await toolbox(BoundedTool(Misbehaved("x" * 120), Bounds(max_output_chars=100))).run(proposal("odd"))
    assert result.content == "x" * 100 + "\n[cut: 20 more characters]"


async def test_a_call_is_a_span_with_its_arguments_and_outcome() -> None:
    trace = RunTrace("r1")
    await toolbox(Calculator(), trace=trace).run(proposal("calculator", expression="2+2"))
    (span,) = trace.records
    assert (span.name, span.kind, span.status) == ("calculator", "tool", "ok")
    assert span.attributes == {
        "call_id": "c1",
        "inputs": {"arguments": {"expression": "2+2"}},
        "outcome": "ok",
        "outputs": {"content": "2+2 = 4"},
    }


class Words:
    """Embeds a text as the set of known words in it."""

    known = ("time", "ticket", "calculate", "search", "poem", "hello")

    def __init__(self) -> None:
        self.texts = 0

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += len(texts)
        rows = np.array([[word in text.lower() for word in self.known] for text in texts], dtype=np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


async def test_the_tool_that_fits_is_suggested_and_its_texts_are_embedded_once() -> None:
    embedder = Words()
    box = toolbox(Calculator(), CurrentTime(lambda: NOW), picker=ToolPicker(embedder))
    (best,) = await box.suggest("Tell me the time")
    assert best[0].name == "current_time"
    assert best[1] == pytest.approx(1.0)
    learnt = embedder.texts
    assert await box.suggest("Who keeps the bolts?") == ()
    assert embedder.texts == learnt + 1


async def test_what_is_near_no_tool_goes_to_the_fallback_unless_it_is_chatter() -> None:
    box = toolbox(
        SearchDocuments(Shelf()), CurrentTime(lambda: NOW), picker=ToolPicker(Words(), fallback="search_documents")
    )
    assert [spec.name for spec, _ in await box.suggest("Who keeps the bolts?")] == ["search_documents"]
    assert await box.suggest("Hello, a poem!") == ()
    without = toolbox(CurrentTime(lambda: NOW), picker=ToolPicker(Words(), fallback="search_documents"))
    assert await without.suggest("Who keeps the bolts?") == ()


async def test_an_escalation_is_a_row_of_its_run() -> None:
    book = Book()
    escalation = StoreEscalation(book, run_id="r1", tenant_id="acme")
    assert await escalation.raise_("no tool fits", detail="d" * 5_000) == "e-1"
    assert list(book.rows.values()) == [("r1", "acme", "no tool fits", "d" * 4_000)]
