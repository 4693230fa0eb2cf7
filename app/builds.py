"""New builds of collections: made, judged and put in the live one's place, alike for the API, jobs and commands."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from app.services.gateway.embedding import MINILM_NAME
from app.services.ingest import kept
from app.services.ingest.chunk import Chunking, chunk
from app.services.retrieval.gate import Report, Thresholds
from app.services.retrieval.golden import GoldenQuestions
from app.services.retrieval.held import HeldDocument
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import Rebuild, Remake, Told, embedded_anew, silent
from app.services.retrieval.recipe import Recipe
from app.services.retrieval.table import Entry
from app.services.store.documents import Documents
from graphs.errors import Missing

Forget = Callable[[str], Awaitable[object]]
"""Drops a tenant's kept answers, which quote what another build found."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a collection is to be made anew; None leaves chunker or embedder as they are.

    With `keep` the build waits for `promote`, whatever the gate would say.
    """

    chunking: Chunking | None = None
    embedder: str | None = None
    keep: bool = False
    bounds: Thresholds = field(default_factory=Thresholds)

    def recipe(self, live: Recipe) -> Recipe:
        chunker = live.chunker if self.chunking is None else str(self.chunking)
        embedder = live.embedder if self.embedder is None else self.embedder
        return Recipe("" if embedder == MINILM_NAME else embedder, chunker)


@dataclass(frozen=True, slots=True)
class Built:
    """The new build, and the gate's verdict unless it was to wait."""

    version: str
    report: Report | None

    @property
    def promoted(self) -> bool:
        return self.report is not None and self.report.passed


class Builds:
    """The builds of all tenants. Who may name a tenant is the caller's matter."""

    def __init__(self, library: Library, documents: Documents, golden: GoldenQuestions, forget: Forget) -> None:
        self._library, self._documents, self._golden, self._forget = library, documents, golden, forget
        self._cutting = Cutting(library, documents)
        self._rebuild = Rebuild(library, self._cutting.remake)

    async def rebuild(
        self, tenant_id: str, collection: str, wish: Wish, *, errand: str = "", told: Told = silent
    ) -> Built:
        """Make the collection anew beside the live build, and promote that if the gate lets it.

        An errand is done once: what an earlier attempt at it came to is found and not made again.

        Raises Missing, Invalid for an embedder that is not to be had, and Conflict where somebody else is at it.
        """
        before = await self._rebuild.earlier(tenant_id, collection, errand) if errand else None
        if before is not None and before.verdict is not None:
            await self._another_answers(tenant_id, collection)
            return Built(before.version, before.verdict)
        if before is None:
            recipe = wish.recipe(await self._library.live_recipe(tenant_id, collection))
            version = await self._rebuild.build(tenant_id, collection, None, recipe, errand=errand, told=told)
        else:
            version = before.version
        return Built(version, None if wish.keep else await self.promote(tenant_id, collection, wish.bounds))

    async def promote(self, tenant_id: str, collection: str, bounds: Thresholds) -> Report:
        """Judge the build that waits by the golden questions; if it passes, it answers from now on.

        Raises Missing, and Conflict where none waits.
        """
        golden = await self._golden.list(tenant_id, collection)
        report = await self._rebuild.promote(tenant_id, collection, golden, bounds)
        if report.passed:
            await self._another_answers(tenant_id, collection)
        return report

    async def roll_back(self, tenant_id: str, collection: str) -> str:
        """Let the build before the last promotion answer again; its version. Raises Missing, Conflict."""
        version = await self._rebuild.roll_back(Place(tenant_id, collection))
        await self._another_answers(tenant_id, collection)
        return version

    async def _another_answers(self, tenant_id: str, collection: str) -> None:
        """Documents are cut into other chunks now, and kept answers quote what is not found any more."""
        await self._documents.recount(tenant_id, collection, await self._library.chunks(tenant_id, collection))
        await self._forget(tenant_id)


class Documented(Protocol):
    """Where the texts of documents are kept."""

    async def content(self, tenant_id: str, collection: str, document_id: str) -> tuple[str, str]: ...


class Cutting:
    """Makes documents of an index anew from the texts that the store keeps, by any recipe."""

    def __init__(self, library: Library, documents: Documented) -> None:
        self._library, self._documents = library, documents

    def remake(self, place: Place, recipe: Recipe) -> Remake:
        by = Chunking.parsed(recipe.chunker)

        async def remake(documents: Sequence[HeldDocument]) -> Sequence[Entry]:
            live = await self._library.live_recipe(place.tenant_id, place.collection)
            if live.chunker != recipe.chunker:
                documents = [await self._cut(place, document, by) for document in documents]
            embedder = await self._library.embedders.named(recipe.embedder, place.tenant_id)
            return await embedded_anew(embedder)(documents)

        return remake

    async def _cut(self, place: Place, document: HeldDocument, by: Chunking) -> HeldDocument:
        """One that the store does not list is being taken in or removed just now; its chunks stay as they are."""
        try:
            text, structure = await self._documents.content(place.tenant_id, place.collection, document.document_id)
        except Missing:
            return document
        parsed = kept.read(document.title, "", text, structure, document.chunks)
        return replace(document, chunks=await asyncio.to_thread(chunk, parsed, by))
