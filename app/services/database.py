"""What a service that keeps tables of its own needs of the database that the store has opened and migrated."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.seals import Seals

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Database(Protocol):
    """Raises StoreUnavailable, an UpstreamError, where it does not answer."""

    @property
    def clock(self) -> Callable[[], datetime]: ...

    @property
    def seals(self) -> Seals: ...

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """For statements that each stand alone."""
        ...

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One transaction: committed at the end of the block, rolled back if it raises."""
        ...

    def insert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """An INSERT that knows ON CONFLICT."""
        ...


def to_us(moment: datetime) -> int:
    """An aware time as the whole microseconds since 1970 that tables keep."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(moment_us: int) -> datetime:
    """The same backwards, in UTC."""
    return _EPOCH + timedelta(microseconds=moment_us)
