"""The process that reads a table, or answers SQL over some: under limits that the kernel keeps, and then it ends.

What it may open is named to it, the rest is out of its reach (`app.confined`); the engine is told the same, so that a
machine without Landlock still has one lock. Orders come in on stdin as JSON; an answer goes out the same way.
"""

import csv
import json
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from app.confined import confine, lacking

MEMORY_BYTES = 2 << 30  # of addresses; DuckDB itself keeps to `ENGINE_MEMORY`
ENGINE_MEMORY = "512MB"
CPU_S = 30
LIMIT_COLUMNS = 1_000
LIMIT_CELL_CHARS = 500
CATALOGUE = "tables"
_OF_THE_ENGINE = ("/proc/self/cgroup", "/proc/meminfo", "/sys/fs/cgroup")  # where it finds how much memory there is
_LOCKED = {
    "memory_limit": ENGINE_MEMORY,
    "threads": "1",
    "temp_directory": "",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else a name that is no table is looked for among our own variables
}


def main() -> None:
    # The engine speaks on standard output by itself: it draws how far a long query is.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    order = json.load(sys.stdin)
    _limit(order["max_file_bytes"])
    import duckdb  # before the files are out of reach

    try:
        answer = _take_in(duckdb, **order["table"]) if "table" in order else _answer(duckdb, **order["query"])
    except duckdb.Error as error:
        # Its first line says what is wrong; further ones draw the place, or quote what it knows.
        answer = {"problem": str(error).partition("\n")[0][:LIMIT_CELL_CHARS]}
    except (ValueError, csv.Error) as error:
        answer = {"problem": str(error)[:LIMIT_CELL_CHARS]}
    except MemoryError:
        answer = {"problem": "this takes more memory than there is for it"}
    with out:
        json.dump(answer, out)


def _limit(max_file_bytes: int) -> None:
    import resource  # POSIX alone has it

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _confine(*, readable: Sequence[str] = (), writable: Sequence[str] = ()) -> None:
    """Before the engine opens: it starts threads, and those that run already would keep their rights."""
    if not lacking():
        paths = sysconfig.get_paths()  # libraries load parts of themselves when they first need them
        libraries = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
        confine(readable=(*libraries, *_OF_THE_ENGINE, *readable), writable=writable)


def _take_in(duckdb: Any, kind: str, folder: str, source: str, target: str) -> dict[str, Any]:
    """Write what `source` holds as Parquet to `target`, both in `folder`; gives columns and the number of rows."""
    reader = {"parquet": "read_parquet(?)", "jsonl": "read_json(?, maximum_depth = 4)"}.get(
        kind, "read_csv(?, header = true, sample_size = -1)"
    )
    _confine(writable=(folder,))
    if kind == "xlsx":
        source = _as_csv(source)
    with duckdb.connect(":memory:", config=_LOCKED) as engine:
        engine.execute(f"CREATE TABLE taken AS SELECT * FROM {reader}", [source])  # noqa: S608 - words of ours
        columns = [(row[0], row[1]) for row in engine.execute("DESCRIBE taken").fetchall()]
        if len(columns) > LIMIT_COLUMNS:
            raise ValueError(f"the table has more than {LIMIT_COLUMNS} columns")
        (rows,) = engine.execute("SELECT count(*) FROM taken").fetchone()
        engine.execute("COPY taken TO ? (FORMAT parquet)", [target])
    return {"columns": columns, "rows": rows}


def _as_csv(source: str) -> str:
    """The first visible sheet that has rows. Raises ValueError."""
    from python_calamine import CalamineError, CalamineWorkbook, SheetVisibleEnum

    try:
        book = CalamineWorkbook.from_path(source)
        sheets = [sheet.name for sheet in book.sheets_metadata if sheet.visible == SheetVisibleEnum.Visible]
        rows = next((rows for name in sheets if (rows := book.get_sheet_by_name(name).to_python())), [])
    except CalamineError as error:
        raise ValueError("the workbook is broken, or locked with a password") from error
    if not rows:
        raise ValueError("the workbook has no visible sheet with rows")
    with open(f"{source}.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([_plain(value) for value in row] for row in rows)
    return f"{source}.csv"


def _plain(value: Any) -> Any:
    """A sheet keeps 15 as 15.0 and a day as midnight."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "seconds")
    return value.isoformat() if isinstance(value, date | time) else value


def _answer(
    duckdb: Any, sql: str, tables: Mapping[str, Mapping[str, Any]], max_rows: int, max_chars: int
) -> dict[str, Any]:
    """The first rows of one SELECT over those of `tables` that it names: each has a path, columns and a row count."""
    _confine(readable=[table["path"] for table in tables.values()])
    with duckdb.connect(":memory:", config=_LOCKED) as engine:
        statement = only_select(duckdb, engine, sql)
        for name in sorted(engine.get_table_names(sql) & tables.keys()):
            _load(duckdb, engine, name, tables[name]["path"])
        _list_tables(engine, tables)
        engine.execute("SET enable_external_access = false")
        engine.execute("SET lock_configuration = true")
        found = engine.execute(statement)
        columns = [str(column[0]) for column in found.description]
        if len(columns) > LIMIT_COLUMNS:
            raise ValueError(f"the answer has more than {LIMIT_COLUMNS} columns")
        rows = found.fetchmany(max_rows + 1)
    shown: list[list[str | None]] = []
    for row in rows[:max_rows]:
        shown.append([_shown(value) for value in row])
        max_chars -= sum(len(cell or "") for cell in shown[-1])
        if max_chars < 0:
            break
    return {"columns": columns, "rows": shown, "more": len(rows) > len(shown)}


def only_select(duckdb: Any, engine: Any, sql: str) -> Any:
    """The one statement there is, parsed. Raises ValueError, and the engine's errors."""
    statements = engine.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise ValueError("only one statement is run, and it must be a SELECT")
    return statements[0]


def _load(duckdb: Any, engine: Any, name: str, path: str) -> None:
    try:
        engine.execute(f'CREATE TABLE "{name}" AS SELECT * FROM read_parquet(?)', [path])  # noqa: S608 - a checked name
    except duckdb.IOException as error:
        raise ValueError(f"the table {name} is being replaced; try again") from error


def _list_tables(engine: Any, tables: Mapping[str, Mapping[str, Any]]) -> None:
    engine.execute(f"CREATE TABLE {CATALOGUE} (table_name TEXT, column_name TEXT, type TEXT, rows BIGINT)")
    listed = list(_catalogue(tables))
    if listed:
        engine.executemany(f"INSERT INTO {CATALOGUE} VALUES (?, ?, ?, ?)", listed)  # noqa: S608


def _catalogue(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
    for name, table in sorted(tables.items()):
        yield from ((name, column, kind, table["rows"]) for column, kind in table["columns"])


def _shown(value: Any) -> str | None:
    return None if value is None else str(value)[:LIMIT_CELL_CHARS]
