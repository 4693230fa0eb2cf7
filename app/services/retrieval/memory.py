"""A Retriever without an index, for tests and for graphs tried in isolation: it counts shared words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.names import HANDBOOK, checked_collection
from app.services.retrieval.filters import holds, parse_filter
from app.services.retrieval.query import checked_limit, checked_query
from graphs.errors import Missing
from graphs.policy import Fusion
from graphs.types import Passage, Retrieval


class MemoryRetriever:
    """Searches the passages it was made with, by collection. Scores are the share of the query's words found."""

    def __init__(self, collections: Mapping[str, Sequence[Passage]]) -> None:
        self._collections = collections

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
        """Passages without a word of the query or of a variant are left out. Nothing re-ranks here."""
        name = checked_collection(HANDBOOK if collection is None else collection)
        limit, only = checked_limit(limit), parse_filter(where)
        wanted = [_words(checked_query(text)) for text in (query, *variants)]
        if name not in self._collections:
            raise Missing(f"no collection {name}")
        scored = [
            replace(passage, score=max(_share(each, f"{passage.title} {passage.text}") for each in wanted))
            for passage in self._collections[name]
            if only is None or holds(only, passage.metadata)
        ]
        best = sorted((found for found in scored if found.score > 0), key=lambda found: (-found.score, found.chunk_id))
        return Retrieval(passages=tuple(best[:limit]), index_version=f"{name}@memory", embedder="none")


def _share(wanted: set[str], text: str) -> float:
    return len(wanted & _words(text)) / max(len(wanted), 1)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
