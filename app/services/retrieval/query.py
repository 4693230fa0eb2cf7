"""What a search accepts, the same for every retriever."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from app.names import HANDBOOK, SHARED_TENANT
from app.services.retrieval.filters import Filter, parse_filter
from graphs.errors import Invalid
from graphs.policy import LIMIT_VARIANTS, Fusion

__all__ = ["HANDBOOK", "SHARED_TENANT", "Query", "checked_limit", "checked_query"]

LIMIT_QUERY_CHARS = 8_000
LIMIT_RESULTS = 100
LIMIT_NEIGHBOURS = 3


@dataclass(frozen=True, slots=True)
class Query:
    """One search. `diversity` is in [0, 1]: how much likeness to what stands above counts against a passage.

    `neighbours` is how many chunks before and after each of the `limit` passages come along with it. `variants` are
    other wordings that are searched beside the text, and `fusion` makes one ranking of theirs. `rerank` names who reads
    the best candidates again.
    """

    text: str
    limit: int = 6
    only: Filter | None = None
    rerank: str = "none"
    diversity: float = 0.0
    neighbours: int = 0
    variants: tuple[str, ...] = ()
    fusion: Fusion = "best"

    @classmethod
    def checked(
        cls,
        text: str,
        limit: int = 6,
        where: Mapping[str, Any] | None = None,
        *,
        rerank: str = "none",
        diversity: float = 0.0,
        neighbours: int = 0,
        variants: Sequence[str] = (),
        fusion: Fusion = "best",
    ) -> Self:
        """Raises Invalid naming the field."""
        if not 0 <= diversity <= 1:
            raise Invalid(f"diversity is 0 to 1, not {diversity}", field="diversity")
        if not 0 <= neighbours <= LIMIT_NEIGHBOURS:
            raise Invalid(f"neighbours are 0 to {LIMIT_NEIGHBOURS}, not {neighbours}", field="neighbours")
        return cls(
            checked_query(text),
            checked_limit(limit),
            parse_filter(where),
            rerank,
            diversity,
            neighbours,
            _checked_variants(variants),
            fusion,
        )

    def reworded(self, text: str, variants: Sequence[str], fusion: Fusion, rerank: str) -> Self:
        """The same search with another question. Raises Invalid."""
        return replace(
            self, text=checked_query(text), variants=_checked_variants(variants), fusion=fusion, rerank=rerank
        )


def checked_query(query: str) -> str:
    """The query without surrounding blanks, lone surrogates replaced. Raises Invalid if it is empty or too long."""
    if len(query) > LIMIT_QUERY_CHARS:
        raise Invalid(f"a query has at most {LIMIT_QUERY_CHARS} characters, this one {len(query)}", field="query")
    clean = query.encode("utf-8", "replace").decode().replace("\x00", " ").strip()
    if not clean:
        raise Invalid("the query is empty", field="query")
    return clean


def _checked_variants(variants: Sequence[str]) -> tuple[str, ...]:
    if len(variants) > LIMIT_VARIANTS:
        raise Invalid(f"at most {LIMIT_VARIANTS} variants are searched, not {len(variants)}", field="variants")
    return tuple(map(checked_query, variants))


def checked_limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_RESULTS:
        raise Invalid(f"limit is 1 to {LIMIT_RESULTS}, not {limit}", field="limit")
    return limit
