"""What happened to a collection's builds, as rows that are only ever added: each is one commit, whole or absent.

A build is one table with all rows of a collection, made by one chunker and one embedder. The first has the empty name
and needs no journal. What is live, what may be rolled back to and what was erased follows from the rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Happening = Literal["building", "built", "promoted", "rolled_back", "discarded", "erased"]
Beside = Literal["before", "waiting"]
"""What a build beside the live one is there for: to be gone back to, or to be promoted."""

Why = Literal["erasure", "rebuild", "age", "embedder"]
"""Why a build beside was dropped though nobody asked for it: it may hold erased text, another was made in its place, it
waited too long, or it is of an embedder whose vectors the live one's cannot be joined to."""


@dataclass(frozen=True, slots=True)
class Event:
    """`version` counts in the build's table: for `erased` the first one that no longer held the text. The `note` of
    `discarded` is a Why, or empty where that needs no telling."""

    at: datetime
    happening: Happening
    build: str
    version: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a collection's builds stand. `floors` holds, by build, the oldest version that erasure left."""

    live: str = ""
    standby: str | None = None
    candidate: str | None = None
    complete: bool = False  # the candidate has all rows, and takes each write from then on
    gone: frozenset[str] = frozenset()
    floors: Mapping[str, int] = field(default_factory=dict)

    @property
    def written(self) -> tuple[str, ...]:
        """The builds that take each write, the live one first."""
        others = (self.standby, self.candidate if self.complete else None)
        return (self.live, *(build for build in others if build is not None))

    @property
    def held(self) -> tuple[str, ...]:
        others = (self.standby, self.candidate)
        return (self.live, *(build for build in others if build is not None))

    @property
    def beside(self) -> dict[str, Beside]:
        """The whole builds beside the live one."""
        found: dict[str, Beside] = {}
        if self.standby is not None:
            found[self.standby] = "before"
        if self.candidate is not None and self.complete:
            found[self.candidate] = "waiting"
        return found

    @property
    def unclean(self) -> bool:
        """Whether erased text may still lie in old versions or data files."""
        return any(build in self.floors for build in self.held)


def standing(events: Iterable[Event]) -> Standing:
    """The sum of the rows, oldest first."""
    live, standby, candidate, complete = "", None, None, False
    gone, floors = set[str](), dict[str, int]()
    for event in events:
        build = event.build
        if event.happening == "building":
            candidate, complete = build, False
        elif event.happening == "built":
            complete = True
        elif event.happening == "promoted":
            live, standby, candidate, complete = build, live, None, False
        elif event.happening == "rolled_back":
            live, standby = build, live
        elif event.happening == "erased":
            floors[build] = max(floors.get(build, 0), event.version)
        else:
            gone.add(build)
            standby = None if build == standby else standby
            candidate, complete = (None, False) if build == candidate else (candidate, complete)
    return Standing(live, standby, candidate, complete, frozenset(gone), floors)


def journal_schema() -> Any:
    import pyarrow as pa  # Lazy, as lancedb is: 47 MB

    return pa.schema(
        [
            pa.field("number", pa.int64(), nullable=False),
            pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
            pa.field("happening", pa.string(), nullable=False),
            pa.field("build", pa.string(), nullable=False),
            pa.field("version", pa.int64(), nullable=False),
            pa.field("note", pa.string(), nullable=False),
        ]
    )
