"""Rows of cells as text: one line a row, cells joined by " | "; rows that stand together are one block."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.services.ingest.document import NOWHERE, Builder, Place

LIMIT_COLUMNS_CHARS = 200  # of the first row, as it heads the later parts of a long table


def row_line(cells: Iterable[str]) -> str:
    """Empty if no cell says anything; cells keep their places, empty ones at the end go."""
    return " | ".join(" ".join(cell.split()) for cell in cells).rstrip("| ")


def put_rows(builder: Builder, rows: Iterable[Sequence[str]], place: Place = NOWHERE) -> None:
    """A block for each run of rows that nothing parts. `place.row`, where it is not 0, is that of the first row."""
    lines: list[str] = []
    row, number = 0, 0
    for number, cells in enumerate(rows):
        line = row_line(cells)
        if line and not lines:
            row = number
        if line:
            lines.append(line)
        elif lines:
            _put(builder, lines, place, row)
            lines = []
    if lines:
        _put(builder, lines, place, row)


def _put(builder: Builder, lines: Sequence[str], place: Place, row: int) -> None:
    placed = replace(place, row=place.row + row) if place.row else place
    columns = lines[0][:LIMIT_COLUMNS_CHARS] if len(lines) > 1 else ""
    # A row that begins with empty cells loses them at the block's start, as every block is trimmed.
    builder.block("\n".join(lines), whole=True, place=placed, columns=columns)
