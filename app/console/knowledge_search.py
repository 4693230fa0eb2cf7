"""The search playground's question and its answer: a form without raw strings, and a table of every candidate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from app.services.retrieval.explain import Candidate, explain
from app.services.retrieval.look import Found
from app.services.retrieval.query import Query
from graphs.errors import Invalid

Mode = Literal["hybrid", "vector", "words"]

CONDITIONS: Final = 3  # rows of the filter's form
OPERATORS: Final = [
    ("eq", "is"),
    ("ne", "is not"),
    ("gte", "is at least"),
    ("lte", "is at most"),
    ("exists", "is there"),
]


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate in the order of the mode. `shown` are the top k, `score` and `place` what the mode ranks by.

    `place` is None for one that only the other version of a comparison finds, and `other` is its place there.
    """

    candidate: Candidate
    place: int | None
    score: float
    shown: bool
    other: int | None = None


def asked(form: Mapping[str, str], known: Mapping[str, Sequence[Any]]) -> tuple[Query, Mode]:
    """From what a browser sent; `known` are the fields of the collection with their values. Raises Invalid."""
    mode: Mode = next((name for name in get_args(Mode) if name == form.get("mode")), "hybrid")
    rerank = "maxsim" if form.get("rerank") == "maxsim" else "none"
    query = Query.checked(
        form.get("query", ""),
        int(_number(form.get("k", ""), "k")),
        _where(form, known),
        rerank=rerank if mode == "hybrid" else "none",
        diversity=_number(form.get("diversity", ""), "diversity") if mode == "hybrid" else 0.0,
    )
    return query, mode


def rows(found: Found, mode: Mode) -> list[Row]:
    """All candidates; of one leg alone, those that it found."""
    seen = explain(found)
    if mode == "hybrid":
        return [Row(each, each.rank, each.passage.score, each.rank <= found.query.limit) for each in seen]
    leg = [(each.vector_rank, each.cosine) if mode == "vector" else (each.text_rank, each.bm25 or 0.0) for each in seen]
    placed = [
        Row(each, rank, score, rank <= found.query.limit)
        for each, (rank, score) in zip(seen, leg, strict=True)
        if rank is not None
    ]
    return sorted(placed, key=lambda row: row.place or 0)


def compared(ours: Sequence[Row], theirs: Sequence[Row]) -> list[Row]:
    """Our rows with their places in the other version, then what only that one shows.

    A passage is the same where it is the same piece of the same document: chunks of two builds have other ids.
    """
    there = {_piece(row): row for row in theirs}
    here = {_piece(row) for row in ours}
    both = [replace(row, other=there[_piece(row)].place if _piece(row) in there else None) for row in ours]
    only = [row for row in theirs if row.shown and _piece(row) not in here]
    return both + [replace(row, place=None, shown=False, other=row.place) for row in only]


def typed(text: str, values: Sequence[Any]) -> Any:
    """The value that is meant: one that the documents have and that reads so, else a number where they have numbers."""
    for value in values:
        if shown(value) == text:
            return value
    if any(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        try:
            number = float(text)
        except ValueError:
            return text
        return int(number) if number.is_integer() else number  # infinity and NaN stay, and the filter refuses them
    return text


def shown(value: Any) -> str:
    """A scalar as the form writes it."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _piece(row: Row) -> tuple[str, int, int]:
    passage = row.candidate.passage
    return passage.document_id, passage.start, passage.end


def _where(form: Mapping[str, str], known: Mapping[str, Sequence[Any]]) -> dict[str, Any] | None:
    parts = []
    for number in range(CONDITIONS):
        key, verb = form.get(f"field{number}", ""), form.get(f"operator{number}", "")
        if key:
            operand = True if verb == "exists" else typed(form.get(f"value{number}", "").strip(), known.get(key, ()))
            parts.append({key: {verb: operand}})
    return {"and": parts} if parts else None


def _number(text: str, field: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Invalid(f"{field} is a number", field=field)
    return number
