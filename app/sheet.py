"""Tables as CSV that a spreadsheet opens without running anything in it.

Excel, LibreOffice and Google Sheets take a cell that begins with one of = + - @ (also in full width, also behind
blanks) for a formula, whoever typed it: a tenant named `=HYPERLINK(...)` would act in the reader's name.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

_FORMULA: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
_BLANK: Final = tuple("\t\r\n")

Cell = str | int | Decimal | None


def sheet(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Iterator[str]:
    """The lines of the file, each with its end, as RFC 4180 has them; texts are quoted, numbers are not."""
    yield _line(header)
    for row in rows:
        yield _line(row)


def harmless(text: str) -> str:
    """The text as a cell: behind an apostrophe, which spreadsheets hide, where it could be read as a formula."""
    begins = text.lstrip().startswith(_FORMULA) or text.startswith(_BLANK)
    return f"'{text}" if begins else text


def dollars(micros: int) -> Decimal:
    """An amount as a cell: exact, with six places."""
    return Decimal(micros).scaleb(-6)


def _line(cells: Sequence[Cell]) -> str:
    # Written anew for each line: the csv module can only write to files, and a report may have 100,000 lines.
    line = io.StringIO(newline="")
    shown = [harmless(cell) if isinstance(cell, str) else cell for cell in cells]
    # Quoted even where a comma is not near: where the list separator is a semicolon, `a;=b` is two cells otherwise.
    csv.writer(line, quoting=csv.QUOTE_NONNUMERIC).writerow(shown)
    return line.getvalue()
