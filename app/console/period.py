"""Which days a report is of: whole days in UTC, both ends included, as the ledger books them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

PERIODS: Final = [("This month", "month"), ("Last month", "last"), ("7 days", "week"), ("Custom", "custom")]
MOST_DAYS: Final = 3_660


@dataclass(frozen=True, slots=True)
class Period:
    """`name` is one of PERIODS."""

    name: str
    first: date
    last: date

    @property
    def since(self) -> datetime:
        return datetime.combine(self.first, time(), UTC)

    @property
    def until(self) -> datetime:
        """Exclusive."""
        return datetime.combine(self.last + timedelta(days=1), time(), UTC)

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1


def period(name: str, today: date, first: str = "", last: str = "") -> Period:
    """`first` and `last` count for `custom` alone; what is no date there falls back to the last 30 days."""
    match name:
        case "last":
            end = today.replace(day=1) - timedelta(days=1)
            return Period(name, end.replace(day=1), end)
        case "week":
            return Period(name, today - timedelta(days=6), today)
        case "custom":
            end = _date(last) or today
            begin = min(_date(first) or end - timedelta(days=29), end)
            return Period(name, max(begin, end - timedelta(days=MOST_DAYS - 1)), end)
        case _:
            return Period("month", today.replace(day=1), today)


def _date(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if 2000 <= found.year < 2200 else None
