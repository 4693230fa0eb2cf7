"""Tables of two tenants on one shelf: what comes in, who may ask, and SQL that means harm."""

import asyncio
import io
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from app.services.tables.apart import SqlFailed
from app.services.tables.child import only_select
from app.services.tables.shelf import Rows, Table, TableShelf
from app.sight import EVERYTHING, OPEN, Sight
from graphs.errors import Conflict, Invalid, Missing
from tests.services.ingest.office import xlsx

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ORDERS = b"id,customer,total,placed\n1,Ada,12.50,2026-01-03\n2,Bo,7,2026-01-04\n3,Ada,30.25,2026-02-01\n"
STAFF = Sight(frozenset({"staff"}))


@pytest.fixture
def shelf(tmp_path: Path) -> TableShelf:
    return TableShelf(tmp_path / "tables")


async def put(shelf: TableShelf, name: str = "orders", content: bytes = ORDERS, **given: Any) -> Table:
    wanted: dict[str, Any] = {"filename": "orders.csv", "sight": EVERYTHING, "now": NOW, "tenant_id": "acme"} | given
    return await shelf.put(wanted.pop("tenant_id"), name, content, wanted.pop("filename"), **wanted)


async def ask(shelf: TableShelf, sql: str, tenant: str = "acme", sight: Sight = OPEN, **bounds: Any) -> Rows:
    return await shelf.query(tenant, sight, sql, **{"max_rows": 10, "max_chars": 10_000, "wall_s": 20.0} | bounds)


async def test_an_uploaded_table_answers_sql(shelf: TableShelf) -> None:
    table = await put(shelf)
    assert table.columns == (("id", "BIGINT"), ("customer", "VARCHAR"), ("total", "DOUBLE"), ("placed", "DATE"))
    assert table.rows == 3
    found = await ask(shelf, "SELECT customer, sum(total) AS paid FROM orders GROUP BY customer ORDER BY paid DESC")
    assert found == Rows(("customer", "paid"), (("Ada", "42.75"), ("Bo", "7.0")), False)
    listed = await ask(shelf, "SELECT * FROM tables")
    assert listed.rows[0] == ("orders", "id", "BIGINT", "3")


def parquet() -> bytes:
    held = io.BytesIO()
    pl.DataFrame({"city": ["Bonn", "Kiel"], "people": [330_000, 247_000]}).write_parquet(held)
    return held.getvalue()


CITIES = [
    ("cities.tsv", b"city\tpeople\nBonn\t330000\nKiel\t247000\n"),
    ("cities.csv", "city;people\nBonn;330000\nKiel;247000\n".encode("utf-8-sig")),
    ("cities.jsonl", b'{"city": "Bonn", "people": 330000}\n{"city": "Kiel", "people": 247000}\n'),
    ("cities.parquet", parquet()),
    ("cities.xlsx", xlsx(("city", "people"), ("Bonn", 330_000.0), ("Kiel", 247_000.0), hidden=("no", "table"))),
]


@pytest.mark.parametrize(("filename", "content"), CITIES, ids=[name for name, _ in CITIES])
async def test_tables_come_in_all_usual_forms(shelf: TableShelf, filename: str, content: bytes) -> None:
    taken = await put(shelf, "cities", content, filename=filename)
    assert (taken.columns, taken.rows) == ((("city", "VARCHAR"), ("people", "BIGINT")), 2)


@pytest.mark.parametrize(
    ("filename", "content"),
    [("a.xlsx", b"PK\x03\x04 no workbook"), ("a.parquet", b"PAR1 no parquet"), ("a.jsonl", b"{"), ("a.csv", b" \n")],
)
async def test_a_broken_file_is_refused_and_leaves_nothing(
    shelf: TableShelf, tmp_path: Path, filename: str, content: bytes
) -> None:
    with pytest.raises(Invalid):
        await put(shelf, "broken", content, filename=filename)
    assert [path for path in (tmp_path / "tables").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["tables", "Orders", "1st", "a b", "", "a" * 64, "../x", 'x"; DROP'])
async def test_a_name_that_sql_would_have_to_quote_is_refused(shelf: TableShelf, name: str) -> None:
    with pytest.raises(Invalid):
        await put(shelf, name)


async def test_another_tenants_tables_are_not_there(shelf: TableShelf, tmp_path: Path) -> None:
    await put(shelf)
    assert await shelf.list("umbrella", EVERYTHING) == []
    for sql in ("SELECT * FROM orders", f"SELECT * FROM read_parquet('{tmp_path}/tables/*/*.parquet')"):
        with pytest.raises(SqlFailed):
            await ask(shelf, sql, "umbrella", EVERYTHING)
    with pytest.raises(Missing):
        await shelf.remove("umbrella", "orders", EVERYTHING)


async def test_a_table_for_a_group_is_neither_seen_nor_read_nor_replaced_by_others(
    shelf: TableShelf, tmp_path: Path
) -> None:
    await put(shelf)
    sealed = await put(shelf, "salaries", b"who,pay\nada,9\n", allow_groups=["staff"])
    assert [table.name for table in await shelf.list("acme", OPEN)] == ["orders"]
    assert (await ask(shelf, "SELECT pay FROM salaries", sight=STAFF)).rows == (("9",),)
    (path,) = (tmp_path / "tables").rglob(sealed.file)
    for sql in (
        "SELECT * FROM salaries",
        f"SELECT o.* FROM orders o, read_parquet('{path}')",
        f"SELECT * FROM '{path}'",
    ):
        with pytest.raises(SqlFailed):
            await ask(shelf, sql)
    assert "salaries" not in str(await ask(shelf, "SELECT * FROM tables"))
    with pytest.raises(Conflict):
        await put(shelf, "salaries", b"who,pay\nada,0\n", sight=OPEN)
    with pytest.raises(Missing):
        await shelf.remove("acme", "salaries", OPEN)
    kept = await put(shelf, "salaries", b"who,pay\nada,10\n", sight=STAFF)
    assert kept.allow_groups == ("staff",)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY orders TO '/tmp/pilothouse-was-here.csv'",
        "ATTACH '/tmp/pilothouse-was-here.db' AS x",
        "EXPORT DATABASE '/tmp/pilothouse-was-here'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA database_list",
        "SET enable_external_access = true",
        "SELECT 1; DROP TABLE orders",
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO orders SELECT * FROM orders",
        "EXPLAIN ANALYZE SELECT 1",
        "PREPARE x AS SELECT 1",
        "CALL duckdb_settings()",
        "-- nothing",
        "",
    ],
)
def test_only_one_select_is_run(sql: str) -> None:
    with duckdb.connect(":memory:") as engine, pytest.raises((ValueError, duckdb.Error)):
        only_select(duckdb, engine, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM os",
        "SELECT list(range) FROM range(1000000000)",
    ],
)
async def test_sql_that_means_harm_fails_and_names_no_path(shelf: TableShelf, tmp_path: Path, sql: str) -> None:
    with pytest.raises(SqlFailed) as failed:
        await ask(shelf, sql)
    assert str(tmp_path) not in str(failed.value)


async def test_a_query_that_explodes_ends(shelf: TableShelf) -> None:
    before = children()
    with pytest.raises(SqlFailed, match=r"longer than 1\.5 s"):
        await ask(shelf, "SELECT count(*) FROM range(100000) a, range(100000) b, range(100000) c", wall_s=1.5)
    assert children() == before


def children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


async def test_an_answer_is_bounded_in_rows_cells_and_characters(shelf: TableShelf) -> None:
    many = await ask(shelf, "SELECT range FROM range(1000000)", max_rows=5)
    assert (len(many.rows), many.more) == (5, True)
    wide = await ask(shelf, "SELECT repeat('x', 1000000) FROM range(10)", max_chars=1_200)
    assert [len(row[0] or "") for row in wide.rows] == [500, 500, 500]
    assert wide.more


async def test_a_new_table_takes_the_place_of_the_old_one_and_its_rows_go(shelf: TableShelf, tmp_path: Path) -> None:
    first = await put(shelf)
    (folder,) = (tmp_path / "tables").iterdir()
    left = folder / ".part-left"
    left.mkdir()
    (folder / "unnamed.parquet").write_bytes(b"")
    for path in (left, folder / "unnamed.parquet"):
        os.utime(path, (time.time() - 7_200,) * 2)
    second = await put(shelf, content=b"id\n9\n")
    assert sorted(path.name for path in folder.iterdir()) == sorted(["orders.json", second.file])
    assert first.file != second.file
    await shelf.remove("acme", "orders", EVERYTHING)
    assert list(folder.iterdir()) == []
    with pytest.raises(Missing):
        await shelf.remove("acme", "orders", EVERYTHING)


ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t"


async def test_queries_that_are_cancelled_leave_no_process(shelf: TableShelf) -> None:
    before = children()
    asking = asyncio.create_task(ask(shelf, ENDLESS, wall_s=30))
    while children() == before:
        await asyncio.sleep(0.02)
    asking.cancel()
    await asyncio.wait({asking})
    assert children() == before
