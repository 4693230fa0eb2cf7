"""Search as a run sees it: the tenant is bound, the handbook is shared, every search is a span."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.names import HANDBOOK, SHARED_TENANT, checked_collection
from app.services.retrieval.library import Library
from app.services.retrieval.look import Found
from app.services.retrieval.query import Query
from app.services.retrieval.rerank import Named, unnamed
from app.sight import OPEN, Sight
from graphs.context import Trace
from graphs.policy import Fusion
from graphs.types import Retrieval


class TenantRetriever:
    """Implements graphs.context.Retriever for one tenant.

    The name "handbook" means the shared collection for everybody, and is what is searched when none is named.
    """

    def __init__(
        self, library: Library, tenant_id: str, trace: Trace, sight: Sight = OPEN, named: Named = unnamed
    ) -> None:
        """`sight` is the reader's own, of that tenant's documents; `named` gives re-rankers at the reader's cost."""
        self._library = library
        self._tenant_id = tenant_id
        self._trace = trace
        self._sight = sight
        self._named = named

    async def search(
        self,
        query: str,
        *,
        collection: str | None = None,
        limit: int = 6,
        where: Mapping[str, Any] | None = None,
        variants: Sequence[str] = (),
        fusion: Fusion = "best",
        rerank: str = "none",
    ) -> Retrieval:
        """Raises Missing for a collection that this tenant does not have, Invalid, IndexFailed."""
        asked = Query.checked(query, limit, where, rerank=rerank, variants=variants, fusion=fusion)
        return (await self.look(asked, collection=collection)).retrieval

    async def look(self, query: Query, *, collection: str | None = None, as_of: str | None = None) -> Found:
        """The same with all that was found on the way, in the version `as_of` where one is named."""
        name = checked_collection(HANDBOOK if collection is None else collection)
        owner = SHARED_TENANT if name == HANDBOOK else self._tenant_id
        with self._trace.span("search", "search", query=query.text, collection=name, k=query.limit) as span:
            # What a tenant calls its groups says nothing in the collection that all tenants share.
            sight = self._sight if owner == self._tenant_id else OPEN
            found = await self._library.look(owner, name, query, as_of, sight, self._named)
            span.set(
                index_version=found.index_version,
                embedder=found.embedder,
                reranked_by=found.retrieval.reranked_by,
                not_reranked=found.ranked.not_reranked,
                chunk_ids=[passage.chunk_id for passage in found.passages],
                scores=[round(passage.score, 4) for passage in found.passages],
            )
        return found
