"""Which tool the embedded picker finds, with the real embedder and the product's own tools."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.tools.calculator import Calculator
from app.services.tools.create_ticket import CreateTicket
from app.services.tools.current_time import CurrentTime
from app.services.tools.pick import ToolPicker
from app.services.tools.search_documents import SearchDocuments
from app.services.tools.tool import Tool

NOWHERE = cast(Any, None)  # tools that are ranked are not run
TOOLS: tuple[Tool, ...] = (
    SearchDocuments(NOWHERE, collection=None, where=None, limit=6),
    Calculator(),
    CurrentTime(lambda: datetime.now(UTC)),
    CreateTicket(NOWHERE),
)


async def first(embedder: MiniLmEmbedder, question: str) -> str | None:
    ranked = await ToolPicker(embedder, fallback=SearchDocuments.spec.name).rank(question, TOOLS)
    return ranked[0][0].name if ranked else None


@pytest.mark.parametrize(
    "order",
    [
        "Create a ticket: the nightly index rebuild failed",
        "Raise a ticket: key rotation does not work",
        "Please open a ticket because the approval queue is stuck",
        "Can you file an issue about the OIDC login?",
    ],
)
async def test_an_order_gets_its_tool_whatever_it_is_about(embedder: MiniLmEmbedder, order: str) -> None:
    assert await first(embedder, order) == "create_ticket"


@pytest.mark.parametrize(
    "question",
    [
        "How do I create a ticket?",
        "Which endpoint lists tickets?",
        "What happens to tickets when a conversation is deleted?",
        "Which error code means: the budget is exhausted?",
    ],
)
async def test_a_question_about_tickets_opens_none(embedder: MiniLmEmbedder, question: str) -> None:
    assert await first(embedder, question) == "search_documents"


@pytest.mark.parametrize(
    ("question", "tool"),
    [
        ("What is 12 * 7?", "calculator"),
        ("Calculate: 15% of 80", "calculator"),
        ("What time is it in Tokyo?", "current_time"),
        ("Good morning!", None),
    ],
)
async def test_what_fits_is_found_and_small_talk_needs_none(
    embedder: MiniLmEmbedder, question: str, tool: str | None
) -> None:
    assert await first(embedder, question) == tool
