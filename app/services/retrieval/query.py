"""What a search accepts, the same for every retriever."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from app.names import HANDBOOK, SHARED_TENANT
from app.services.retrieval.filters import Filter, parse_filter
from graphs.errors import Invalid

__all__ = ["HANDBOOK", "SHARED_TENANT", "Query", "Rerank", "checked_limit", "checked_query"]

LIMIT_QUERY_CHARS = 8_000
LIMIT_RESULTS = 100
LIMIT_NEIGHBOURS = 3

Rerank = Literal["none", "maxsim"]


@dataclass(frozen=True, slots=True)
class Query:
    """One search. `diversity` is in [0, 1]: how much likeness to what stands above counts against a passage.

    `neighbours` is how many chunks before and after each of the `limit` passages come along with it.
    """

    text: str
    limit: int = 6
    only: Filter | None = None
    rerank: Rerank = "none"
    diversity: float = 0.0
    neighbours: int = 0

    @classmethod
    def checked(
        cls,
        text: str,
        limit: int = 6,
        where: Mapping[str, Any] | None = None,
        *,
        rerank: Rerank = "none",
        diversity: float = 0.0,
        neighbours: int = 0,
    ) -> Self:
        """Raises Invalid naming the field."""
        if not 0 <= diversity <= 1:
            raise Invalid(f"diversity is 0 to 1, not {diversity}", field="diversity")
        if not 0 <= neighbours <= LIMIT_NEIGHBOURS:
            raise Invalid(f"neighbours are 0 to {LIMIT_NEIGHBOURS}, not {neighbours}", field="neighbours")
        return cls(checked_query(text), checked_limit(limit), parse_filter(where), rerank, diversity, neighbours)


def checked_query(query: str) -> str:
    """The query without surrounding blanks, lone surrogates replaced. Raises Invalid if it is empty or too long."""
    if len(query) > LIMIT_QUERY_CHARS:
        raise Invalid(f"a query has at most {LIMIT_QUERY_CHARS} characters, this one {len(query)}", field="query")
    clean = query.encode("utf-8", "replace").decode().replace("\x00", " ").strip()
    if not clean:
        raise Invalid("the query is empty", field="query")
    return clean


def checked_limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_RESULTS:
        raise Invalid(f"limit is 1 to {LIMIT_RESULTS}, not {limit}", field="limit")
    return limit
