"""Workbooks and comma-separated files: their rows. Runs in the child process."""

import csv
from datetime import date, datetime, time
from statistics import median
from typing import Any

from app.services.ingest.archive import checked_archive
from app.services.ingest.detect import MEDIA_TYPES, decode
from app.services.ingest.document import Builder, ParsedDocument, Place, normalise
from app.services.ingest.table import put_rows
from graphs.errors import DocumentUnreadable

_DELIMITERS = ",;\t|"
_HEAD_CHARS = 16_384


def parse_xlsx(data: bytes) -> ParsedDocument:
    """A sheet is a heading, its rows keep their numbers. Hidden sheets are left out and noted."""
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum, SheetVisibleEnum

    builder, notes = Builder(""), list[str]()
    try:
        book = CalamineWorkbook.from_filelike(checked_archive(data))
        for sheet in book.sheets_metadata:
            if sheet.typ != SheetTypeEnum.WorkSheet:
                continue
            if sheet.visible != SheetVisibleEnum.Visible:
                notes.append(f"the hidden sheet {sheet.name} is left out")
                continue
            read = book.get_sheet_by_name(sheet.name)
            builder.heading(1, sheet.name)
            rows = ([_shown(value) for value in row] for row in read.to_python())
            first_row = (read.start or (0, 0))[0] + 1
            put_rows(builder, rows, Place(sheet=normalise(sheet.name), row=first_row))
    except PasswordError as error:
        raise DocumentUnreadable("the workbook is locked with a password", field="file") from error
    except CalamineError as error:
        raise DocumentUnreadable("the workbook is broken", field="file") from error
    return builder.build("", MEDIA_TYPES["xlsx"], tuple(notes))


def parse_csv(data: bytes) -> ParsedDocument:
    """Encoding and delimiter are found; a row keeps the number of its line."""
    text = normalise(decode(data))
    builder = Builder("")
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # the process's own: never made smaller
    try:
        rows = csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(text[:_HEAD_CHARS]))
        put_rows(builder, rows, Place(row=1))
    except csv.Error as error:
        raise DocumentUnreadable(f"the table is broken: {error}", field="file") from error
    return builder.build("", MEDIA_TYPES["csv"])


def _delimiter(head: str) -> str:
    """The one that gives the most columns in most rows; the comma where none parts anything."""
    lines = head.split("\n")[:20]

    def columns(delimiter: str) -> float:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        return median(widths) if widths else 0

    return max(_DELIMITERS, key=columns)


def _shown(value: Any) -> str:
    """As a reader of the sheet sees it, less its number format: a sheet keeps 15 as 15.0 and a day as midnight."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "seconds")
    return value.isoformat() if isinstance(value, date | time) else str(value)
