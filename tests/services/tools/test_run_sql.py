"""SQL as a tool: what a model is given to read."""

from dataclasses import dataclass

import pytest

from app.services.tools.run_sql import RunSql, RunSqlOptions, markdown
from app.services.tools.tool import ToolCall
from graphs.errors import Invalid


@dataclass
class Found:
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    more: bool = False


class Tables:
    def __init__(self, found: Found | Invalid) -> None:
        self.found = found
        self.asked: list[tuple[str, int, int, float]] = []

    async def query(self, sql: str, *, max_rows: int, max_chars: int, wall_s: float) -> Found:
        self.asked.append((sql, max_rows, max_chars, wall_s))
        if isinstance(self.found, Invalid):
            raise self.found
        return self.found


def call(sql: str) -> ToolCall:
    return ToolCall({"sql": sql}, "acme", "ada", "r1", "r1:c1")


async def test_rows_come_as_a_table_that_says_where_it_was_cut() -> None:
    tables = Tables(Found(("city", "people"), (("Bonn", "330000"), ("Kiel", None)), more=True))
    said = await RunSql(RunSqlOptions(max_rows=2), tables).run(call("SELECT * FROM cities"))
    assert said.content == (
        "| city | people |\n| --- | --- |\n| Bonn | 330000 |\n| Kiel |  |\n\n[only the first 2 rows; there are more]"
    )
    assert tables.asked == [("SELECT * FROM cities", 2, 8_000, 15.0)]


async def test_no_rows_are_said_to_be_none() -> None:
    said = await RunSql(RunSqlOptions(), Tables(Found(("a", "b"), ()))).run(call("SELECT 1"))
    assert said.content == "No rows. The columns are: a, b."


def test_a_cell_cannot_leave_its_row_or_column() -> None:
    assert markdown(["a"], [["x | y\n| z |\\"]]) == "| a |\n| --- |\n| x \\| y \\| z \\|\\\\ |"


async def test_what_is_wrong_with_the_sql_reaches_the_model() -> None:
    with pytest.raises(Invalid, match="no such table"):
        await RunSql(RunSqlOptions(), Tables(Invalid("no such table"))).run(call("SELECT * FROM x"))
