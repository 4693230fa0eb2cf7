"""Keeps collections as they are while their files are copied: writes, builds and maintenance wait, searches go on."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from app.services.retrieval.locks import Locks

_SUFFIX = ".lance"


class Standstill:
    """Holds the turns of every process of this machine, from `halt` to the end of the block."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where the tables lie; it need not be there."""
        self._folder = folder
        self._locks = Locks(folder / ".locks")
        self._turns = AsyncExitStack()
        self._halted = set[str]()

    async def __aenter__(self) -> Self:
        await self._turns.__aenter__()
        # The others' order, or we would wait for each other: the round, then a build, then a write.
        await self._turns.enter_async_context(self._locks.turn("round"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._turns.aclose()

    async def halt(self) -> list[Path]:
        """Halt the collections that have come since the last call; the folders of their tables."""
        new = sorted({_base(table) for table in self._tables()} - self._halted)
        # All builds first: one that takes long must not keep the writers of other collections waiting too.
        for kind in ("build", "write"):
            for base in new:
                await self._turns.enter_async_context(self._locks.turn(f"{base}.{kind}"))
        self._halted.update(new)
        return [table for table in self._tables() if _base(table) in new]

    @asynccontextmanager
    async def untidied(self, table: Path) -> AsyncIterator[None]:
        """Nobody joins the files of this table or drops its old versions."""
        async with self._locks.turn(f"{table.name.removesuffix(_SUFFIX)}.tidy"):
            yield

    def _tables(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))


def _base(table: Path) -> str:
    """A collection's tables begin with its base, which has two parts; see `Place`."""
    return "_".join(table.name.removesuffix(_SUFFIX).split("_")[:2])
