"""A tenant's own tables: uploaded as CSV, XLSX, Parquet or lines of JSON, kept as Parquet, asked in SQL.

A table is a line of JSON, `<name>.json`, which names the file of its rows: replacing it is what makes an upload true,
so a crash leaves the old table or the new one. Tables lie in the folder of one installation, under a name that only
tells tenants apart; processes on other machines do not see them.
"""

import asyncio
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

from app.ids import new_id
from app.services.tables.apart import ordered
from app.services.tables.child import CATALOGUE
from app.sight import MAX_DOCUMENT_GROUPS, Sight, checked_groups
from graphs.errors import Conflict, Invalid, Missing

Kind = Literal["csv", "xlsx", "parquet", "jsonl"]
KINDS: Final[dict[str, Kind]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".xlsx": "xlsx",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
MAX_TABLES: Final = 200  # of one tenant
READ_S: Final = 60.0
MAX_GROWTH: Final = 16  # times the upload that its rows may weigh, as a workbook is packed
LEFT_S: Final = 3_600.0  # after which what a killed upload left is swept
_PART: Final = ".part-"
_ROOM_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_AT_ONCE: Final = 2  # child processes, two gigabytes each at most


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` are names and DuckDB's types; `file` is that of its rows. `created_at` is when it was uploaded, and
    `uploaded_by` by whom, where that is known."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: int
    size_bytes: int
    allow_groups: tuple[str, ...]
    created_at: datetime
    file: str
    uploaded_by: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query gave; cells as text, None for NULL. `more` says that there are rows beyond these."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    more: bool


class TableShelf:
    """All tenants' tables, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._writing = asyncio.Lock()

    async def put(
        self,
        tenant_id: str,
        name: str,
        content: bytes,
        filename: str,
        *,
        sight: Sight,
        now: datetime,
        allow_groups: Sequence[str] | None = None,
        uploaded_by: str | None = None,
    ) -> Table:
        """Take a table in, in the place of one of that name. `allow_groups` None leaves it to those it was for.

        Raises Invalid, and Conflict for a name that a table has which `sight` does not see.
        """
        _check_name(name)
        groups = None if allow_groups is None else checked_groups(allow_groups, MAX_DOCUMENT_GROUPS, "allowGroups")
        kind = _kind(filename, content)
        folder = self._of(tenant_id)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_PART) as part:
            found = await self._taken_in(kind, content, Path(part))
            async with self._writing:
                held = await asyncio.to_thread(self._held, folder)
                known = held.get(name)
                if known is not None and not sight.sees(known.allow_groups):
                    raise Conflict(f"the name {name} is taken", field="name")
                if known is None and len(held) >= MAX_TABLES:
                    raise Invalid(f"there are {MAX_TABLES} tables already", field="name")
                kept = known.allow_groups if known else ()
                table = Table(
                    name=name,
                    columns=tuple((column, kind) for column, kind in found["columns"]),
                    rows=found["rows"],
                    size_bytes=len(content),
                    allow_groups=kept if groups is None else groups,
                    created_at=now,
                    file=f"{new_id()}.parquet",
                    uploaded_by=uploaded_by,
                )
                await asyncio.to_thread(_publish, folder, Path(part), table, known)
                await asyncio.to_thread(_sweep, folder, {each.file for each in held.values()} | {table.file})
        return table

    async def list(self, tenant_id: str, sight: Sight) -> list[Table]:
        """By name, those that `sight` sees."""
        held = await asyncio.to_thread(self._held, self._of(tenant_id))
        return [table for _, table in sorted(held.items()) if sight.sees(table.allow_groups)]

    async def remove(self, tenant_id: str, name: str, sight: Sight) -> None:
        """Raises Missing."""
        folder = self._of(tenant_id)
        async with self._writing:
            if name not in {table.name for table in await self.list(tenant_id, sight)}:
                raise Missing("no such table")
            table = (await asyncio.to_thread(self._held, folder))[name]
            await asyncio.to_thread(_remove, folder, table)

    async def query(
        self, tenant_id: str, sight: Sight, sql: str, *, max_rows: int, max_chars: int, wall_s: float
    ) -> Rows:
        """The first rows of one SELECT over the tables that `sight` sees; `tables` lists them. Raises SqlFailed."""
        folder = self._of(tenant_id)
        seen = {
            table.name: {"path": str(folder / table.file), "columns": table.columns, "rows": table.rows}
            for table in await self.list(tenant_id, sight)
        }
        order = {"sql": sql, "tables": seen, "max_rows": max_rows, "max_chars": max_chars}
        async with self._turns:
            found = await ordered({"query": order}, wall_s=wall_s)
        return Rows(tuple(found["columns"]), tuple(map(tuple, found["rows"])), found["more"])

    async def _taken_in(self, kind: Kind, content: bytes, part: Path) -> dict[str, Any]:
        source, target = part / f"source.{kind}", part / "rows.parquet"
        await asyncio.to_thread(source.write_bytes, content)
        table = {"kind": kind, "folder": str(part), "source": str(source), "target": str(target)}
        async with self._turns:
            return await ordered(
                {"table": table}, wall_s=READ_S, max_file_bytes=MAX_GROWTH * len(content) + _ROOM_BYTES
            )

    def _of(self, tenant_id: str) -> Path:
        return self._folder / sha256(tenant_id.encode("utf-8", "surrogatepass")).hexdigest()

    @staticmethod
    def _held(folder: Path) -> dict[str, Table]:
        tables = (_read(path) for path in folder.glob("*.json"))
        return {table.name: table for table in tables if table is not None}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name == CATALOGUE:
        wanted = "small letters, digits and _, a letter first, 63 at most"
        raise Invalid(f"a table's name has {wanted}, and is not {CATALOGUE}", field="name")


def _kind(filename: str, content: bytes) -> Kind:
    kind = KINDS.get(Path(filename).suffix.lower())
    if kind is None:
        raise Invalid(f"a table's file is named one of {', '.join(KINDS)}", field="file")
    if not content.strip():
        raise Invalid("the file is empty", field="file")
    return kind


def _read(path: Path) -> Table | None:
    """None where it was removed a moment ago."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    lists = {"columns": tuple(map(tuple, told["columns"])), "allow_groups": tuple(told["allow_groups"])}
    return Table(**told | lists | {"created_at": datetime.fromisoformat(told["created_at"])})


def _publish(folder: Path, part: Path, table: Table, before: Table | None) -> None:
    told = json.dumps(asdict(table) | {"created_at": table.created_at.isoformat()}, ensure_ascii=False)
    (part / "rows.parquet").rename(folder / table.file)
    (part / "told.json").write_text(told, encoding="utf-8")
    os.replace(part / "told.json", folder / f"{table.name}.json")
    if before is not None:
        (folder / before.file).unlink(missing_ok=True)


def _sweep(folder: Path, kept: Set[str]) -> None:
    """Remove what killed uploads left: folders of theirs, and rows that no table names."""
    old = time.time() - LEFT_S
    for path in folder.iterdir():
        is_left = path.name.startswith(_PART) or (path.suffix == ".parquet" and path.name not in kept)
        if is_left and path.stat().st_mtime < old:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _remove(folder: Path, table: Table) -> None:
    (folder / f"{table.name}.json").unlink(missing_ok=True)
    (folder / table.file).unlink(missing_ok=True)
