"""Reads what a provider says it bills: the CSV files that OpenAI and Anthropic export, and any of the like.

A file has a column for the day, one for the model, and either a cost in US dollars or tokens or both; the names are
recognised, the order does not matter, other columns are passed over. Lines of the same day and model add up.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from graphs.errors import Invalid

_MICROS: Final = 1_000_000
_LARGEST: Final = Decimal(10) ** 15  # more dollars, or tokens, than any line of a bill has

# Names as `_plain` leaves them. Of several that fit, the first named here is taken.
_DAY: Final = (
    *("date", "day", "usage_date_utc", "usage_date", "start_time_iso", "starting_at", "bucket_start_time"),
    *("start_time", "timestamp"),
)
_MODEL: Final = ("model", "model_version", "model_name", "model_id", "snapshot_id", "line_item")
_COST: Final = (
    *("cost_usd", "cost_in_usd", "total_cost_usd", "amount_usd", "cost", "total_cost", "amount_value", "amount", "usd"),
)
_CURRENCY: Final = ("currency", "amount_currency", "cost_currency")
_OUTPUT: Final = ("output_tokens", "completion_tokens", "usage_output_tokens", "n_generated_tokens_total", "tokens_out")
_INPUT: Final = (
    *("input_tokens", "prompt_tokens", "usage_input_tokens", "n_context_tokens_total", "tokens_in"),
    *("uncached_input_tokens", "input_tokens_no_cache", "usage_input_tokens_no_cache"),
)
# Anthropic counts what its prompt cache read and wrote beside the input tokens; OpenAI's cached tokens are among them.
_BESIDE_INPUT: Final = frozenset(
    {
        *("cache_creation_input_tokens", "cache_read_input_tokens"),
        *("cache_creation_ephemeral_5m_input_tokens", "cache_creation_ephemeral_1h_input_tokens"),
        *("usage_input_tokens_cache_read", "usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h"),
    }
)


@dataclass(frozen=True, slots=True)
class Billed:
    """What a provider says of one day and model; None for what its export does not tell.

    `cents` is how many of its amounts were written in whole cents, each of which may be rounded.
    """

    input_tokens: int | None
    output_tokens: int | None
    cost_micros: int | None
    cents: int = 0


@dataclass(frozen=True, slots=True)
class Export:
    """A provider's export by day and model. `nothing` is what it says of a day and model without a line."""

    lines: Mapping[tuple[date, str], Billed]
    nothing: Billed


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where in a line what is found."""

    day: int
    model: int
    item: bool  # the model's column names what is billed: "gpt-4o-2024-08-06, input"
    cost: int | None
    currency: int | None
    inputs: tuple[int, ...]
    output: int | None


def read_export(text: str) -> Export:
    """Blocking. Raises Invalid, naming the line, for anything that cannot be read: a bill is not guessed at."""
    header, _, _ = text.removeprefix("\ufeff").lstrip("\r\n").partition("\n")
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter, strict=True)
    columns: _Columns | None = None
    sums: dict[tuple[date, str], list[Decimal]] = {}
    cents: Counter[tuple[date, str]] = Counter()
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _columns([_plain(cell) for cell in cells])
                continue
            key, amounts = _line(cells, columns, reader.line_num)
            sums[key] = [a + b for a, b in zip(sums.get(key, [Decimal(0)] * 3), amounts, strict=True)]
            cents[key] += columns.cost is not None and amounts[-1] * 100 == (amounts[-1] * 100).to_integral_value()
    except csv.Error as error:
        raise Invalid(f"line {reader.line_num} of the export is not CSV", field="export") from error
    if columns is None or not sums:
        raise Invalid("the export has no line", field="export")
    lines = {key: replace(_billed(columns, *amounts), cents=cents[key]) for key, amounts in sums.items()}
    return Export(lines, _billed(columns))


def _columns(names: Sequence[str]) -> _Columns:
    def find(wanted: Sequence[str]) -> int | None:
        return next((names.index(name) for name in wanted if name in names), None)

    day, model, cost, output = find(_DAY), find(_MODEL), find(_COST), find(_OUTPUT)
    inputs = (find(_INPUT), *(place for place, name in enumerate(names) if name in _BESIDE_INPUT))
    found = tuple(place for place in inputs if place is not None)
    if day is None or model is None:
        raise Invalid("the export has no column for the day or none for the model", field="export")
    if cost is None and (not found or output is None):
        raise Invalid("the export has no column for the cost, nor for input and output tokens", field="export")
    return _Columns(day, model, names[model] == "line_item", cost, find(_CURRENCY), found, output)


def _plain(name: str) -> str:
    """`Cost (USD)` and `cost_usd` are one name."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _line(cells: Sequence[str], columns: _Columns, number: int) -> tuple[tuple[date, str], Sequence[Decimal]]:
    """Day, model, and the amounts of input tokens, output tokens and dollars."""
    if len(cells) <= max(columns.day, columns.model, columns.cost or 0, columns.output or 0, *columns.inputs, 0):
        raise Invalid(f"line {number} of the export has too few cells", field="export")
    if columns.currency is not None and (currency := cells[columns.currency].strip().lower()) not in {"", "usd"}:
        raise Invalid(f"line {number} of the export is in {currency[:8]}, not in US dollars", field="export")
    model = cells[columns.model].strip()
    if columns.item:
        model = model.partition(",")[0].strip()
    try:
        read = sum((_tokens(cells[place]) for place in columns.inputs), Decimal(0))
        wrote = Decimal(0) if columns.output is None else _tokens(cells[columns.output])
        cost = Decimal(0) if columns.cost is None else _amount(cells[columns.cost])
        return (_day(cells[columns.day]), model), (read, wrote, cost)
    except (ValueError, ArithmeticError) as error:
        raise Invalid(
            f"line {number} of the export has an amount or a day that cannot be read", field="export"
        ) from error


def _amount(text: str) -> Decimal:
    """`$1,234.50` or `1234.5`; an empty cell is nothing. A credit is below 0."""
    plain = text.strip().replace("$", "").strip()
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d*)?", plain):
        plain = plain.replace(",", "")
    amount = Decimal(plain or 0)
    if not abs(amount) <= _LARGEST:  # not so for NaN either
        raise ValueError(text)
    return amount


def _tokens(text: str) -> Decimal:
    amount = _amount(text)
    if amount < 0 or amount != amount.to_integral_value():
        raise ValueError(text)
    return amount


def _day(text: str) -> date:
    """A UTC day from a date, a time with its offset, or seconds since 1970."""
    plain = text.strip()
    if re.fullmatch(r"\d{9,11}(\.0*)?", plain):
        return datetime.fromtimestamp(float(plain), UTC).date()
    at = datetime.fromisoformat(plain)
    return (at if at.tzinfo is None else at.astimezone(UTC)).date()


def _billed(
    columns: _Columns, read: Decimal = Decimal(0), wrote: Decimal = Decimal(0), usd: Decimal = Decimal(0)
) -> Billed:
    return Billed(
        input_tokens=int(read) if columns.inputs else None,
        output_tokens=None if columns.output is None else int(wrote),
        cost_micros=None if columns.cost is None else int((usd * _MICROS).to_integral_value(ROUND_HALF_UP)),
    )
