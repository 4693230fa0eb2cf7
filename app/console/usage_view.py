"""The ledger's sums as the Usage tab shows them: what was asked, the tiles, and the rows of the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import urlencode

from app.console.figures import compact, counted, money, portion
from app.console.period import Period
from app.services.quota.totals import Totals
from app.services.quota.usage import DIMENSIONS, Dimension, UsageReport
from graphs.errors import Invalid

Measure = Literal["cost", "tokens", "calls"]

UNSPLIT: Final = frozenset({"day", "run"})  # of these there are too many for a colour each
ID_CHARS: Final = 8  # enough to tell two apart; the title has the rest


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is of. `tenant` None looks at all that the caller may see."""

    period: Period
    dimensions: tuple[Dimension, ...]
    tenant: str | None
    measure: Measure

    @classmethod
    def of(cls, span: Period, first: str, second: str, tenant: str, measure: str, *, across: bool) -> "Question":
        """From what a browser sent. `across` tenants, users are told apart by theirs. Raises Invalid."""
        names = dict.fromkeys(name for name in (first, second) if name)
        if across and not tenant and list(names) == ["user"]:
            names = {"tenant": None, "user": None}
        dimensions = tuple(dimension for name in names for dimension in DIMENSIONS if dimension == name)
        if len(dimensions) != len(names) or not dimensions:
            raise Invalid("there is no such dimension", field="groupBy")
        return cls(
            span, dimensions, tenant or None, next((name for name in get_args(Measure) if name == measure), "cost")
        )

    @property
    def split(self) -> Dimension | None:
        """What the columns of the plot are made of."""
        return next((name for name in self.dimensions if name not in UNSPLIT), None)

    @property
    def title(self) -> str:
        return f"{self.measure.capitalize()} by day" + (f" and {self.split}" if self.split else "")

    @property
    def query(self) -> str:
        """The same report as a file, over the API."""
        asked = {"groupBy": ",".join(self.dimensions), "from": self.period.first, "to": self.period.last}
        return urlencode(asked | ({"tenantId": self.tenant} if self.tenant else {}) | {"format": "csv"})


@dataclass(frozen=True, slots=True)
class Tile:
    """`exact` is what the short figure stands for."""

    name: str
    figure: str
    under: str
    exact: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """A group's value: as it is shown, in full, and the run that it leads to."""

    text: str
    full: str
    run: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """`share` is of the report's total in the chosen measure; `estimated` of the row's own cost."""

    names: tuple[Name, ...]
    share: float
    estimated: float
    totals: Totals


def measured(totals: Totals, measure: Measure) -> int:
    match measure:
        case "cost":
            return totals.cost_micros
        case "tokens":
            return totals.input_tokens + totals.output_tokens
        case "calls":
            return totals.calls


def rows(found: UsageReport, measure: Measure, key_names: Mapping[str, str]) -> list[Row]:
    """Days in their order, anything else with the greatest first."""
    whole = measured(found.total, measure) or 1
    made = [
        Row(
            names=tuple(_name(by, value, key_names) for by, value in zip(found.group_by, row.keys, strict=True)),
            share=measured(row.totals, measure) / whole,
            estimated=estimated(row.totals),
            totals=row.totals,
        )
        for row in found.rows
    ]
    if "day" in found.group_by:
        place = found.group_by.index("day")
        return sorted(made, key=lambda row: (row.names[place].full, row.share), reverse=True)
    return sorted(made, key=lambda row: -row.share)


def estimated(totals: Totals) -> float:
    """The part of the cost that was counted here; of the attempts where nothing cost anything."""
    return totals.estimated_micros / totals.cost_micros if totals.cost_micros else totals.estimated_share


def tiles(total: Totals, days: int) -> tuple[Tile, ...]:
    tokens = total.input_tokens + total.output_tokens
    endings = {"failed": total.failed, "cancelled": total.cancelled, "from cache": total.cached}
    told = [f"{number:,} {name}" for name, number in endings.items() if number]
    retries = total.attempts - total.calls
    cached = total.cached_input_tokens / total.input_tokens if total.input_tokens else 0
    return (
        Tile(
            "Cost",
            money(total.cost_micros),
            f"{money(total.cost_micros / days)} a day",
            f"{total.cost_micros:,} µ$",
        ),
        Tile(
            "Calls",
            compact(total.calls),
            " · ".join([*told, *([counted(retries, "retry", "retries")] if retries > 0 else [])]) or "all went well",
            f"{total.calls:,} calls, {total.attempts:,} attempts",
        ),
        Tile(
            "Tokens",
            compact(tokens),
            f"{compact(total.input_tokens)} in · {compact(total.output_tokens)} out"
            + (f" · {portion(cached)} of it cached" if cached else ""),
            f"{total.input_tokens:,} in, {total.output_tokens:,} out",
        ),
        Tile(
            "Estimated",
            portion(estimated(total)),
            f"of the cost: {counted(total.estimated, 'attempt')} without the provider's count"
            if total.estimated
            else "the provider counted every call",
            f"{total.estimated_micros:,} µ$ of {total.cost_micros:,} µ$",
        ),
    )


def _name(by: Dimension, value: str, key_names: Mapping[str, str]) -> Name:
    if by == "run" and value:
        return Name(value[:ID_CHARS], value, run=value)
    if by == "key" and value:
        return Name(key_names.get(value, value[:ID_CHARS]), value)
    return Name(value, value)
