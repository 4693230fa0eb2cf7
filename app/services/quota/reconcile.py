"""Compares the ledger's sums with a provider's, by day and model.

Providers date their models (`gpt-4o-2024-08-06`) and a ledger may know them under names of its own, so a line of ours
finds its line of theirs by the version that the provider answered with, by its configured name, or by either without
the date.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from app.services.quota.export import Billed, Export
from app.services.quota.totals import Totals

HALF_A_CENT_MICROS: Final = 5_000  # so far off may each amount be that a provider rounded to cents

Booked = tuple[str, str, str]  # day, model, the version that the provider answered with


@dataclass(frozen=True, slots=True)
class Compared:
    """One day and model. `theirs` None if the export has no such line. Differences are ours minus theirs.

    `difference_micros` and `difference_tokens` (input and output together) are None where the export does not tell.
    `estimated_calls` are ids, not necessarily all of `ours.estimated`.
    """

    day: date
    model: str
    ours: Totals
    theirs: Billed | None
    difference_micros: int | None
    difference_tokens: int | None
    estimated_calls: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the costs are the same to the cent; where only tokens are told, whether those are the same."""
        if self.difference_micros is not None:
            return abs(self.difference_micros) <= HALF_A_CENT_MICROS * max(1, self.rounded)
        return not self.difference_tokens

    @property
    def rounded(self) -> int:
        """How many amounts of theirs may be rounded to cents."""
        return 0 if self.theirs is None else self.theirs.cents


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """All lines by day and model, and what they come to together; days outside the export are not in it."""

    lines: tuple[Compared, ...]
    ours_micros: int
    theirs_micros: int | None
    difference_micros: int | None

    @property
    def agrees(self) -> bool:
        """Whether every line does, and all together: many lines that are each off by a little may hide dollars."""
        rounded = sum(line.rounded for line in self.lines)
        total = abs(self.difference_micros or 0) <= HALF_A_CENT_MICROS * max(1, rounded)
        return total and all(line.agrees for line in self.lines)


def reconcile(
    bill: Export,
    booked: Mapping[Booked, Totals],
    estimated: Iterable[tuple[Booked, str]],
    vendor_names: Mapping[str, str],
) -> Reconciliation:
    versions = _versions(booked)
    theirs_names = {model for _, model in bill.lines}

    def key(row: Booked) -> tuple[date, str]:
        day, model, version = row
        names = (version or versions.get(model, ""), vendor_names.get(model, ""), model)
        return date.fromisoformat(day), _billed_as([name for name in names if name], theirs_names)

    ours: defaultdict[tuple[date, str], Totals] = defaultdict(Totals)
    for row, totals in booked.items():
        ours[key(row)] += totals
    guesses: defaultdict[tuple[date, str], list[str]] = defaultdict(list)
    for row, call_id in estimated:
        guesses[key(row)].append(call_id)
    lines = tuple(
        _compare(place, ours[place], bill.lines.get(place), bill.nothing, tuple(guesses[place]))
        for place in sorted({*ours, *bill.lines})
    )
    costs = [line.cost_micros for line in bill.lines.values()]
    theirs_micros = None if bill.nothing.cost_micros is None else sum(cost or 0 for cost in costs)
    ours_micros = sum(line.ours.cost_micros for line in lines)
    difference = None if theirs_micros is None else ours_micros - theirs_micros
    return Reconciliation(lines, ours_micros, theirs_micros, difference)


def _versions(booked: Mapping[Booked, Totals]) -> Mapping[str, str]:
    """Of each model the version that answered most: attempts that failed have none, but are billed under it."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (_, model, version), totals in booked.items():
        if version:
            counts[model][version] += totals.attempts
    return {model: found.most_common(1)[0][0] for model, found in counts.items()}


def _billed_as(names: Sequence[str], theirs: Collection[str]) -> str:
    """The name in the export of a model that goes by any of `names`, the best first."""
    for name in names:
        if name in theirs:
            return name
    for name in names:
        alike = {other for other in theirs if _undated(other) == _undated(name)}
        if len(alike) == 1:
            return alike.pop()
    return names[0]


def _undated(model: str) -> str:
    return re.sub(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|latest)$", "", model)


def _compare(
    place: tuple[date, str], ours: Totals, theirs: Billed | None, nothing: Billed, estimated_calls: tuple[str, ...]
) -> Compared:
    against = theirs or nothing
    cost, read, wrote = against.cost_micros, against.input_tokens, against.output_tokens
    tokens = None if read is None or wrote is None else ours.input_tokens + ours.output_tokens - read - wrote
    return Compared(*place, ours, theirs, None if cost is None else ours.cost_micros - cost, tokens, estimated_calls)
