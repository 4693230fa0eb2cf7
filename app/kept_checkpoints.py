"""Where the savers of LangGraph keep values in their tables: for who has to change all of them in place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.envelopes import of_channel, of_checkpoint, of_write


@dataclass(frozen=True, slots=True)
class Kept:
    """A table of values. `ids` are the columns that `place` is made of, the thread first; `mark` the database's sign
    for a parameter."""

    table: str
    ids: tuple[str, ...]
    value: str
    place: Callable[[Sequence[Any]], Sequence[str]]
    mark: str

    @property
    def _stale(self) -> str:
        return f"{self.value} IS NOT NULL AND {self._head} <> {self.mark}"

    @property
    def _head(self) -> str:
        return f"substr({self.value}, 1, {self.mark})"

    @property
    def count(self) -> str:
        """How many are not sealed with the current key; takes the length of its mark, and that."""
        return f"SELECT count(*) AS count FROM {self.table} WHERE {self._stale}"  # noqa: S608 - names of ours

    @property
    def select(self) -> str:
        """Those: ids, type, value."""
        columns = ", ".join((*self.ids, "type", self.value))
        return f"SELECT {columns} FROM {self.table} WHERE {self._stale}"  # noqa: S608 - names of ours

    @property
    def update(self) -> str:
        """Takes type and value, the ids, and the value that was read."""
        same = " AND ".join(f"{column} = {self.mark}" for column in (*self.ids, self.value))
        return f"UPDATE {self.table} SET type = {self.mark}, {self.value} = {self.mark} WHERE {same}"  # noqa: S608


_WRITE: Final = ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "channel", "idx")
_CHECKPOINT: Final = ("thread_id", "checkpoint_ns", "checkpoint_id")
_BLOB: Final = ("thread_id", "checkpoint_ns", "channel", "version")


def _write(ids: Sequence[Any]) -> Sequence[str]:
    return of_write(*ids[1:5])


SQLITE_KEPT: Final = (
    Kept("checkpoints", _CHECKPOINT, "checkpoint", lambda ids: of_checkpoint(*ids[1:]), "?"),
    Kept("writes", _WRITE, "value", _write, "?"),
)
POSTGRES_KEPT: Final = (
    Kept("checkpoint_blobs", _BLOB, "blob", lambda ids: of_channel(*ids[1:]), "%s"),
    Kept("checkpoint_writes", _WRITE, "blob", _write, "%s"),
)
