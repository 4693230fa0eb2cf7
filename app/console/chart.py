"""Columns over time, stacked by who or what they are of: the geometry alone, in percent of the plot.

The template draws bars as SVG, stretched to whatever room there is, and words as HTML over it, which must not stretch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

MOST_SERIES: Final = 6  # as many colours can be told apart; the rest is one series more
MOST_DAYS: Final = 92  # beyond this a column is a month
BAR_SHARE: Final = 0.72  # of a column; the rest is the gap
WIDEST_BAR: Final = 5.0
OTHER: Final = "Other"
_STEPS: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Piece:
    """One series in one column; `top` is measured from the top of the plot. `series` counts from 0."""

    series: int
    name: str
    value: int
    top: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """`left` and `width` are those of its whole slot, `bar_left` and `bar_width` of what is drawn in the middle."""

    label: str
    tick: str
    left: float
    width: float
    bar_left: float
    bar_width: float
    total: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    total: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Oldest column first; series by their total, greatest first, and `OTHER` last; `marks` are value and top."""

    columns: tuple[Column, ...]
    series: tuple[Series, ...]
    marks: tuple[tuple[float, float], ...]
    total: int

    @property
    def colours(self) -> Mapping[str, int]:
        """The number of each series' colour, from 1; what stands under `OTHER` has none of its own."""
        return {series.name: number for number, series in enumerate(self.series[:MOST_SERIES], 1)}

    @property
    def highest(self) -> Column | None:
        return max(self.columns, key=lambda column: column.total, default=None)


def chart(
    values: Mapping[tuple[str, str], int], totals: Mapping[str, int], first: date, last: date, *, ticks: int = 8
) -> Chart:
    """`values` by day (2026-11-24) and series, `totals` by day; what a day's values lack of its total is `OTHER`.

    Days from `first` to `last`, both included, have a column each, also those on which nothing happened.
    """
    by_month = (last - first).days >= MOST_DAYS
    slots = _slots(first, last, by_month)
    whole = dict.fromkeys(slots, 0)
    for day, total in totals.items():
        whole[_slot(day, by_month)] += total
    series, stacks = _ranked(values, whole, by_month)
    ceiling, marks = _scale(max(whole.values(), default=0))
    width = 100 / len(slots)
    bar = min(width * BAR_SHARE, WIDEST_BAR)
    every = -(-len(slots) // ticks)
    return Chart(
        columns=tuple(
            Column(
                label=_label(slot),
                tick=_tick(slot) if place % every == 0 else "",
                left=round(width * place, 4),
                width=round(width, 4),
                bar_left=round(width * (place + 0.5) - bar / 2, 4),
                bar_width=round(bar, 4),
                total=whole[slot],
                pieces=_stacked(stacks[slot], series, ceiling),
            )
            for place, slot in enumerate(slots)
        ),
        series=tuple(series),
        marks=tuple((mark, round(100 - 100 * mark / ceiling, 4)) for mark in marks),
        total=sum(whole.values()),
    )


def _ranked(
    values: Mapping[tuple[str, str], int], whole: Mapping[str, int], by_month: bool
) -> tuple[list[Series], dict[str, list[int]]]:
    """The series that get a colour, and how much of each is in every slot."""
    cells: dict[tuple[str, str], int] = {}
    sums: dict[str, int] = {}
    for (day, name), value in values.items():
        place = _slot(day, by_month), name
        cells[place] = cells.get(place, 0) + value
        sums[name] = sums.get(name, 0) + value
    own = sorted((name for name in sums if sums[name]), key=lambda name: (-sums[name], name))[:MOST_SERIES]
    series = [Series(name, sums[name]) for name in own]
    stacks = {slot: [cells.get((slot, name), 0) for name in own] for slot in whole}
    rest = {slot: whole[slot] - sum(stack) for slot, stack in stacks.items()}
    if any(rest.values()):
        series.append(Series(OTHER, sum(rest.values())))
        stacks = {slot: [*stack, rest[slot]] for slot, stack in stacks.items()}
    return series, stacks


def _slots(first: date, last: date, by_month: bool) -> list[str]:
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return list(dict.fromkeys(_slot(day.isoformat(), by_month) for day in days))


def _slot(day: str, by_month: bool) -> str:
    return day[:7] if by_month else day


def _stacked(values: Sequence[int], series: Sequence[Series], ceiling: float) -> tuple[Piece, ...]:
    """The greatest series at the foot."""
    pieces: list[Piece] = []
    below = 0
    for number, value in enumerate(values):
        if value > 0:
            below += value
            height = 100 * value / ceiling
            pieces.append(
                Piece(number, series[number].name, value, round(100 - 100 * below / ceiling, 4), round(height, 4))
            )
    return tuple(pieces)


def _scale(highest: int) -> tuple[float, list[float]]:
    """A round ceiling at or above `highest`, and three to five marks up to it, 0 included."""
    if highest <= 0:
        return 1.0, [0.0]
    rough = highest / 4
    power = 10 ** (len(str(int(rough))) - 1) if rough >= 1 else 1
    step = next(step * power for step in _STEPS if step * power >= rough)
    count = -(-highest // step)
    return step * count, [step * number for number in range(int(count) + 1)]


def _label(slot: str) -> str:
    return f"{date.fromisoformat(slot):%a %d %b %Y}" if len(slot) > 7 else f"{date.fromisoformat(slot + '-01'):%B %Y}"


def _tick(slot: str) -> str:
    return f"{date.fromisoformat(slot):%d %b}" if len(slot) > 7 else f"{date.fromisoformat(slot + '-01'):%b %y}"
