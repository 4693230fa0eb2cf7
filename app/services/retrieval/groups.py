"""Which rows of a collection a reader sees, as a predicate that the index applies before it looks for the nearest.

The column is written by the library alone and no filter of a caller's reaches it. A row for everyone holds EVERYONE in
the place of groups, so one that came to hold nothing is seen by nobody but the owner.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from app.services.retrieval.commit import IndexFailed, committed, guarded
from app.services.retrieval.predicate import literal
from app.sight import EVERYONE, EVERYTHING, Sight

if TYPE_CHECKING:
    from app.services.retrieval.shelf import Snapshot

COLUMN: Final = "allow_groups"
# What a table gets that is from before documents had groups: everybody saw its rows, and nobody noted their source.
_ADDED: Final = {COLUMN: f"make_array({literal(EVERYONE)})", "trust": "'untrusted'"}
_FOR_SOME: Final = f"NOT coalesce(array_has({COLUMN}, {literal(EVERYONE)}), false)"


@dataclass(slots=True)
class ForSome:
    """Whether one version of a table has rows that are not for everyone; counted when first asked."""

    _any: bool | None = None

    async def any(self, table: Any) -> bool:
        if self._any is None:
            # 5 ms for 100,000 rows, once a version; the predicate would cost each search 10.
            self._any = await table.count_rows(_FOR_SOME) > 0
        return self._any


@dataclass(frozen=True, slots=True)
class Seen:
    """What a search may find.

    `hidden` is for a search "as of" an earlier version: the documents that today's groups keep from this reader. They
    count, and not those of that day.
    """

    sight: Sight = EVERYTHING
    hidden: Collection[str] | None = None

    async def line(self, snapshot: "Snapshot") -> str | None:
        """The predicate; None where there is nothing to keep back."""
        if self.sight.everything:
            return None
        if self.hidden is not None:
            named = ", ".join(map(literal, sorted(self.hidden)))
            return f"document_id NOT IN ({named})" if named else None
        return _for(self.sight) if await snapshot.for_some.any(snapshot.table) else None


async def hidden_documents(snapshot: "Snapshot", sight: Sight) -> frozenset[str]:
    """The documents that are kept from this reader."""
    if sight.everything or not await snapshot.for_some.any(snapshot.table):
        return frozenset()
    query = snapshot.table.query().where(f"ordinal = 0 AND NOT coalesce({_for(sight)}, false)")
    return frozenset((await query.select(["document_id"]).to_arrow())["document_id"].to_pylist())


async def ensure_groups(table: Any) -> None:
    """Give a table from before documents had groups its columns. Raises IndexFailed."""
    if await has_groups(table):
        return
    try:
        await committed(partial(table.add_columns, _ADDED))
    except IndexFailed:
        if not await has_groups(table):  # else another process has come first
            raise


async def has_groups(table: Any) -> bool:
    return COLUMN in (await guarded(table.schema())).names


def written_groups(allow_groups: Collection[str]) -> list[str]:
    """As the column holds them."""
    return sorted(allow_groups) or [EVERYONE]


def read_groups(written: Collection[str] | None) -> tuple[str, ...]:
    """The same backwards. Raises IndexFailed for a row that holds nothing: whom it is for cannot be told."""
    if not written:
        raise IndexFailed("a row of the index does not say whom it is for")
    return tuple(name for name in written if name != EVERYONE)


async def relabelled(table: Any, document_id: str, allow_groups: Collection[str], trust: str) -> None:
    """Say of all rows of a document whom they are for and where they came from, in one commit."""
    groups = ", ".join(map(literal, written_groups(allow_groups)))
    values = {COLUMN: f"make_array({groups})", "trust": literal(trust)}
    await committed(partial(table.update, where=f"document_id = {literal(document_id)}", updates_sql=values))


def _for(sight: Sight) -> str:
    return f"array_has_any({COLUMN}, make_array({', '.join(map(literal, (EVERYONE, *sorted(sight.groups))))}))"
