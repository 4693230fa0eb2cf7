"""SQL over the tables of the run's tenant, as many of them as its user sees: one SELECT, bounded in time and answer.

Where the tables are kept and what runs the statement is the shelf's; the tenant and whose eyes these are were fixed
when the tool was made, and no SQL can name another.
"""

from collections.abc import Sequence
from typing import ClassVar, Protocol

from pydantic import Field

from app.config.part import Part, Seconds
from app.services.tools.tool import ToolCall, ToolOutput
from graphs.types import ToolSpec


class Rows(Protocol):
    """Cells as text, None for NULL; `more` says that there are rows beyond these."""

    @property
    def columns(self) -> Sequence[str]: ...
    @property
    def rows(self) -> Sequence[Sequence[str | None]]: ...
    @property
    def more(self) -> bool: ...


class Tables(Protocol):
    """The tables of one tenant that one person sees."""

    async def query(self, sql: str, *, max_rows: int, max_chars: int, wall_s: float) -> Rows:
        """Raises Invalid with the reason."""
        ...


class RunSqlOptions(Part):
    """The `options` of the tool."""

    max_rows: int = Field(default=50, ge=1, le=1_000)
    max_chars: int = Field(default=8_000, ge=200, le=200_000, description="Of all cells together, about.")
    timeout_s: Seconds = 15.0


class RunSql:
    spec: ClassVar[ToolSpec] = ToolSpec(
        name="run_sql",
        description="Query the uploaded tables (sales, orders, stock, any CSV or workbook) with one SQL SELECT in "
        "DuckDB's dialect. SELECT * FROM tables lists them with their columns.",
        parameters={
            "type": "object",
            "properties": {
                "sql": {
                    "type": "string",
                    "description": "One SELECT statement",
                    "minLength": 1,
                    "maxLength": 8_000,
                    "pattern": r"\S",
                }
            },
            "required": ["sql"],
            "additionalProperties": False,
        },
        own=True,
        examples=(
            ("Which tables are there?", {"sql": "SELECT * FROM tables"}),
            ("What did each customer order?", {"sql": "SELECT customer, sum(total) FROM orders GROUP BY customer"}),
        ),
    )
    examples: ClassVar[tuple[str, ...]] = (
        "What was the total revenue per month in the sales table?",
        "How many orders did each customer place?",
        "Which columns does the uploaded spreadsheet have?",
        "Average price per category in the products table.",
    )

    def __init__(self, options: RunSqlOptions, tables: Tables) -> None:
        self._options, self._tables = options, tables

    async def run(self, call: ToolCall) -> ToolOutput:
        most = self._options
        found = await self._tables.query(
            str(call.arguments["sql"]), max_rows=most.max_rows, max_chars=most.max_chars, wall_s=most.timeout_s
        )
        if not found.rows:
            return ToolOutput(f"No rows. The columns are: {', '.join(found.columns)}.")
        table = markdown(found.columns, found.rows)
        left = f"\n\n[only the first {len(found.rows)} rows; there are more]" if found.more else ""
        return ToolOutput(table + left)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    """As a table of Markdown; NULL is an empty cell."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("\\", "\\\\").replace("|", "\\|")
