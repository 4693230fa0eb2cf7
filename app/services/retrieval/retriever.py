"""Search as a run sees it: the tenant is bound, the handbook is shared, every search is a span."""

from collections.abc import Mapping
from typing import Any

from app.names import HANDBOOK, SHARED_TENANT, checked_collection
from app.services.retrieval.library import Library
from app.services.retrieval.look import Found
from app.services.retrieval.query import Query
from app.sight import OPEN, Sight
from graphs.context import Trace
from graphs.types import Retrieval


class TenantRetriever:
    """Implements graphs.context.Retriever for one tenant.

    The name "handbook" means the shared collection for everybody, and is what is searched when none is named.
    """

    def __init__(self, library: Library, tenant_id: str, trace: Trace, sight: Sight = OPEN) -> None:
        """`sight` is the reader's own, of that tenant's documents."""
        self._library = library
        self._tenant_id = tenant_id
        self._trace = trace
        self._sight = sight

    async def search(
        self, query: str, *, collection: str | None = None, limit: int = 6, where: Mapping[str, Any] | None = None
    ) -> Retrieval:
        """Raises Missing for a collection that this tenant does not have, Invalid, IndexFailed."""
        return (await self.look(Query.checked(query, limit, where), collection=collection)).retrieval

    async def look(self, query: Query, *, collection: str | None = None, as_of: str | None = None) -> Found:
        """The same with all that was found on the way, in the version `as_of` where one is named."""
        name = checked_collection(HANDBOOK if collection is None else collection)
        owner = SHARED_TENANT if name == HANDBOOK else self._tenant_id
        with self._trace.span("search", "search", query=query.text, collection=name, k=query.limit) as span:
            # What a tenant calls its groups says nothing in the collection that all tenants share.
            sight = self._sight if owner == self._tenant_id else OPEN
            found = await self._library.look(owner, name, query, as_of, sight)
            span.set(
                index_version=found.index_version,
                embedder=found.embedder,
                chunk_ids=[passage.chunk_id for passage in found.passages],
                scores=[round(passage.score, 4) for passage in found.passages],
            )
        return found
