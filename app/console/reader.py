"""What the console reads for its pages, always within the caller's tenant: transcripts, runs, cited passages."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from app.console.advice import Advice, advice_on
from app.console.passage import drawn_passage
from app.console.turn import Turn
from app.console.view import draw
from app.names import HANDBOOK, SHARED_TENANT
from app.records import CardCitation, Principal
from app.services.store.records import ApprovalRecord, ConversationRecord, RunFilter, RunRecord
from app.services.store.store import Store
from graphs.errors import Missing, PilothouseError, Unauthenticated

TURNS_SHOWN = 50
_GONE = Advice(
    "The document is gone", "It was deleted after this answer, or you may not see it. The run keeps the quote.", "warn"
)


def principal_of(request: gr.Request) -> Principal:
    """Who the middleware found. Raises Unauthenticated where it found nobody: nothing here works without."""
    principal = request.request.scope.get("principal") if request.request else None
    if not isinstance(principal, Principal):
        raise Unauthenticated("the session has ended")
    return principal


class Reader:
    """Read models over the store. `runs` seen by others than their user need the scope runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def conversations(self, who: Principal) -> Sequence[ConversationRecord]:
        return (await self._store.conversations.list(who.tenant_id, who.user_id, 50, None)).items

    async def turns(self, who: Principal, conversation_id: str) -> list[Turn]:
        """Oldest first, the last TURNS_SHOWN. Raises Missing for a conversation of somebody else."""
        await self._store.conversations.get(conversation_id, who.tenant_id, who.user_id)
        filters = RunFilter(conversation_id=conversation_id)
        page = await self._store.runs.list(who.tenant_id, who.user_id, filters, TURNS_SHOWN, None)
        return [await self.turn(who, run) for run in reversed(page.items)]

    async def run(self, who: Principal, run_id: str) -> RunRecord:
        """Raises Missing."""
        return await self._store.runs.get(run_id, who.tenant_id, None if who.may("runs") else who.user_id)

    async def turn(self, who: Principal, run: RunRecord) -> Turn:
        opinions = await self._store.feedback.for_run(run.run_id, who.tenant_id)
        mine = next((opinion for opinion in opinions if opinion.user_id == who.user_id), None)
        turn = Turn.of(run, await self._approval(who, run), mine)
        if run.status in {"failed", "cancelled"}:  # the card has no answer; what had streamed is in the events
            for event in await self._store.runs.events(run.run_id, who.tenant_id, 0):
                turn.take(event)
        return turn

    async def with_passages(self, who: Principal, turn: Turn) -> Turn:
        """The same turn with what its search read, for the column of sources."""
        if not turn.passages and turn.run_id and turn.mode != "chat":
            turn.passages = await self._retrieved(who, turn.run_id)
        return turn

    async def passage(self, who: Principal, run_id: str, *, number: str = "", chunk_id: str = "") -> Markup:
        """A citation of a run by its number, or a retrieved passage by its chunk, in its document; or why not."""
        try:
            run = await self.run(who, run_id)
            found = await self._cited(run, number) if number else await self._read(who, run, chunk_id)
            home = SHARED_TENANT if found.collection == HANDBOOK else who.tenant_id
            text = await self._store.documents.text(home, found.collection, found.document_id, who.sight)
        except Missing:
            return draw("unopened", run_id=run_id, notice=_GONE)
        except PilothouseError as error:
            return draw("unopened", run_id=run_id, notice=advice_on(error))
        return drawn_passage(found, text, run_id=run_id)

    async def _approval(self, who: Principal, run: RunRecord) -> ApprovalRecord | None:
        if run.mode != "agent":
            return None
        asked = await self._store.approvals.of_run(run.run_id, who.tenant_id)
        return asked[-1] if asked else None

    async def _retrieved(self, who: Principal, run_id: str) -> Sequence[Mapping[str, Any]]:
        passages: dict[str, Mapping[str, Any]] = {}
        for event in await self._store.runs.events(run_id, who.tenant_id, 0):
            if event.type == "retrieval.completed":
                passages |= {passage["chunkId"]: passage for passage in event.data["passages"]}
        return list(passages.values())

    async def _cited(self, run: RunRecord, number: str) -> CardCitation:
        citations = run.card.citations if run.card else ()
        found = next((citation for citation in citations if str(citation.number) == number), None)
        if found is None:
            raise Missing("the run has no such citation")
        return found

    async def _read(self, who: Principal, run: RunRecord, chunk_id: str) -> CardCitation:
        for passage in await self._retrieved(who, run.run_id):
            if passage["chunkId"] == chunk_id:
                return CardCitation.model_validate({**passage, "number": 0, "quote": passage["text"]}, extra="ignore")
        raise Missing("the run read no such passage")
