"""What the tools of our MCP server do: search passages, and ask a graph, as the API does for the same caller."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
from pydantic import Field, StrictInt, StringConstraints

from app.api.schemas import MAX_QUERY_CHARS, MAX_RESULTS, Collection, Filter, Id, Message, Name
from app.api.search_views import SearchOut
from app.records import AnswerCard, Camel, CardCitation, Mode, Principal, RunEvent, RunRequest
from app.search import search as searched
from app.services.retrieval.query import Query
from graphs.errors import Conflict, Missing, PilothouseError

if TYPE_CHECKING:
    from app.workbench import Workbench

FEATURE: Final = "mcp"
Tell = Callable[[float, str], Awaitable[None]]
"""Says how far a call has come: a number that only grows, and words."""


class SearchCall(Camel):
    query: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUERY_CHARS),
        Field(description="What to look for, in the words that a document would use."),
    ]
    collection: Collection | None = Field(default=None, description="The product's handbook where none is named.")
    k: Annotated[StrictInt, Field(ge=1, le=MAX_RESULTS, description="How many passages.")] = 6
    filter: Filter | None = Field(default=None, description='By metadata, as {"lang": "en"}.')


class AskCall(Camel):
    message: Message = Field(description="The question.")
    mode: Mode = Field(default="rag", description="chat: a model alone; rag: from documents; agent: with tools.")
    collection: Collection | None = Field(default=None, description="The documents; the handbook where none is named.")
    conversation_id: Id | None = Field(default=None, description="To go on with a conversation of an earlier answer.")
    model: Name | None = None
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A tool's result: words for a model, and the same as data for a program."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)
    failed: bool = False

    @classmethod
    def of(cls, error: PilothouseError) -> "Said":
        told = {"code": error.code, "kind": error.kind, "message": error.message, "retryAfterS": error.retry_after_s}
        return cls(error.message, {"error": told}, failed=True)


async def search(bench: "Workbench", who: Principal, asked: SearchCall) -> Said:
    """Raises as `app.search.search`."""
    query = Query.checked(asked.query, asked.k, asked.filter)
    found = SearchOut.of(await searched(bench, who, query, collection=asked.collection), explained=False)
    passages = [
        f"[{number}] {each.title} (document {each.document_id}, chunk {each.chunk_id})\n{each.text}"
        for number, each in enumerate(found.results, 1)
    ]
    data = found.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return Said("\n\n".join(passages) or "No passage was found.", data)


async def ask(bench: "Workbench", who: Principal, asked: AskCall, tell: Tell, left: asyncio.Event) -> Said:
    """Run a graph to its end, or to an approval. A call that its client takes back takes the run with it; one whose
    client has gone lets go of the run, which ends as one that nobody reads. Raises as `Runner.start`."""
    request = RunRequest(
        message=asked.message,
        mode=asked.mode,
        conversation_id=asked.conversation_id,
        collection=asked.collection,
        model=asked.model,
        where=asked.filter,
        feature=FEATURE,
    )
    run_id = await bench.runner.start(who, request)
    reading = asyncio.create_task(_read(bench, who, run_id, tell))
    leaving = asyncio.create_task(left.wait())
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True), suppress(Conflict, Missing):  # it has ended meanwhile
            await bench.runner.cancel(who, run_id)
        raise
    finally:
        reading.cancel()
        leaving.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({reading, leaving})
    if not reading.cancelled():
        reading.result()
    return answered(await bench.runner.card(who, run_id))


async def _read(bench: "Workbench", who: Principal, run_id: str, tell: Tell) -> None:
    async with aclosing(bench.runner.events(who, run_id)) as events:
        async for event in events:
            if words := _progress(event):
                await tell(event.number, words)


def _progress(event: RunEvent) -> str:
    """What a person who waits would want to know; empty for what comes too often."""
    match event.type:
        case "run.started":
            return f"run {event.data['requestId']} has begun"
        case "retrieval.completed":
            return f"{len(event.data['passages'])} passages found"
        case "tool.proposed" | "tool.completed":
            return f"{event.data['name']}: {event.type.partition('.')[2]}"
        case "validation.completed":
            return "the answer is checked"
    return ""


def answered(card: AnswerCard) -> Said:
    """The card's answer with its sources, what it waits for, or why there is none."""
    told: dict[str, Any] = {
        "runId": card.request_id,
        "conversationId": card.conversation_id,
        "status": card.status,
        "answer": card.answer,
        "citations": [each.model_dump(mode="json", by_alias=True) for each in card.citations],
        "approvalId": card.pending_approval,
    }
    if card.error is not None:
        words = f"{card.error.message} (run {card.request_id})"
        return Said(words, told | {"error": card.error.model_dump(mode="json", by_alias=True)}, failed=True)
    if card.status == "waiting":
        waits = f"Nothing is answered yet: run {card.request_id} waits until a person decides on approval "
        return Said(f"{waits}{card.pending_approval}.", told)
    return Said("\n\n".join((card.answer, *map(_source, card.citations))), told)


def _source(citation: CardCitation) -> str:
    return f"[{citation.number}] {citation.title} (document {citation.document_id}): {citation.quote}"
