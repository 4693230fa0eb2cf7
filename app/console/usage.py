"""The Usage tab: what was spent and on what, by any one or two dimensions, and how the month's budgets stand."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

import gradio as gr
from markupsafe import Markup

from app.budgets import budgets
from app.console.advice import advice_on
from app.console.budgets import BudgetView
from app.console.chart import Chart, chart
from app.console.chat import PRIVATE, Update
from app.console.panel import EMPTY, panel, said
from app.console.period import PERIODS, period
from app.console.reader import principal_of
from app.console.usage_view import ID_CHARS, Question, measured, rows, tiles
from app.console.view import draw
from app.records import Principal
from app.services.quota.usage import MAX_ROWS, Dimension, UsageReport
from app.usage import report
from app.workbench import Workbench
from graphs.errors import PilothouseError

REFRESH_S: Final = 15.0
ROWS_SHOWN: Final = 200
TWO_PLACES_MICROS: Final = 1_000_000_000  # where thousands of dollars are spent, parts of a cent only take room
DIMENSIONS: Final[Sequence[Dimension]] = (
    "model",
    "tenant",
    "user",
    "feature",
    "provider",
    "day",
    "key",
    "outcome",
    "run",
)
MEASURES: Final = [("Cost", "cost"), ("Tokens", "tokens"), ("Calls", "calls")]


class UsageTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Column(elem_id="usage", min_width=0):
            with gr.Row(elem_id="usage-bar", elem_classes="toolbar"):
                self.period = gr.Radio(PERIODS, value="month", label="Period", container=False, elem_classes="segments")
                self.range = panel(acts=("range",), elem_id="usage-range")
                self.first = gr.Dropdown(_choices("By", DIMENSIONS), value="model", label="Group by", container=False)
                self.second = gr.Dropdown(
                    _choices("then by", DIMENSIONS, "and nothing else"), value="", label="Then by", container=False
                )
                self.tenant = gr.Dropdown(
                    [("All tenants", "")], value="", label="Tenant", container=False, visible=False
                )
                self.measure = gr.Radio(
                    MEASURES, value="cost", label="Measure", container=False, elem_classes="segments"
                )
                self.download = panel(elem_id="usage-download")
            self.board = panel(acts=("inspect",), elem_id="usage-board")
        self.days = gr.State(("", ""))
        self.timer = gr.Timer(REFRESH_S, active=False)
        self.chosen = [self.period, self.days, self.first, self.second, self.tenant, self.measure]

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        shown = [self.board, self.download, self.range]
        changes = [item.change for item in (self.period, self.first, self.second, self.tenant, self.measure)]
        gr.on(changes, self._shown, self.chosen, shown, trigger_mode="always_last", **PRIVATE)
        self.range.range(self._ranged, self.chosen, [self.days, *shown], **PRIVATE)
        self.timer.tick(self._refreshed, self.chosen, [self.board], **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` may update."""
        return [self.board, self.download, self.range, self.first, self.second, self.tenant]

    async def listed(self, request: gr.Request, *chosen: Any) -> Update:
        """Everything anew; for when the tab comes to the front."""
        who = principal_of(request)
        known = [name for name in DIMENSIONS if _may_ask(who, name)]
        update = await self._shown(request, *chosen)
        return {
            **update,
            self.first: gr.update(choices=_choices("By", known)),
            self.second: gr.update(choices=_choices("then by", known, "and nothing else")),
            self.tenant: gr.update(visible=True, choices=await self._tenants(who)) if who.is_owner else gr.skip(),
        }

    async def _shown(self, request: gr.Request, *chosen: Any) -> Update:
        who = principal_of(request)
        try:
            asked = self._question(who, *chosen)
        except PilothouseError as error:
            return {self.board: draw("usage", notice=advice_on(error)), self.download: EMPTY}
        return {
            self.board: await self._drawn(who, asked),
            self.download: draw("usage_download", query=asked.query),
            self.range: draw("usage_range", period=asked.period),
        }

    async def _refreshed(self, request: gr.Request, *chosen: Any) -> Update:
        return {self.board: (await self._shown(request, *chosen))[self.board]}

    async def _ranged(self, request: gr.Request, event: gr.EventData, *chosen: Any) -> Update:
        days = (said(event, "first"), said(event, "last"))
        return {**await self._shown(request, chosen[0], days, *chosen[2:]), self.days: days}

    def _question(
        self, who: Principal, span: str, days: tuple[str, str], first: str, second: str, tenant: str, measure: str
    ) -> Question:
        return Question.of(period(span, self._today, *days), first, second, tenant, measure, across=who.is_owner)

    @property
    def _today(self) -> date:
        return self._bench.clock().date()

    async def _tenants(self, who: Principal) -> list[tuple[str, str]]:
        found = await report(self._bench, who, ("tenant",), limit=MAX_ROWS)
        return [("All tenants", ""), *((row.keys[0], row.keys[0]) for row in found.rows)]

    async def _drawn(self, who: Principal, asked: Question) -> Markup:
        try:
            found = await self._report(who, asked, asked.dimensions, ROWS_SHOWN)
            keys = await self._key_names(who) if "key" in asked.dimensions else {}
            plot = await self._plot(who, asked, keys)
            standing = await budgets(self._bench, who, f"{self._today:%Y-%m}", tenant_id=asked.tenant)
        except PilothouseError as error:
            return draw("usage", notice=advice_on(error))
        return draw(
            "usage",
            notice=None,
            measure=asked.measure,
            dimensions=asked.dimensions,
            rows=rows(found, asked.measure, keys),
            places=2 if found.total.cost_micros >= TWO_PLACES_MICROS else 4,
            cut=found.groups > len(found.rows),
            tiles=tiles(found.total, asked.period.days),
            plot=plot,
            split=asked.split,
            colours=plot.colours,
            chart_title=asked.title,
            month=f"{self._today:%B %Y}",
            budgets=[BudgetView.of(budget) for budget in standing],
            owner=who.is_owner,
        )

    async def _plot(self, who: Principal, asked: Question, keys: Mapping[str, str]) -> Chart:
        by: tuple[Dimension, ...] = ("day",) if asked.split is None else ("day", asked.split)
        found = await self._report(who, asked, by, MAX_ROWS)
        # Where a report is cut, its days' totals are asked for by themselves: the columns stay as high as they are.
        days = found if found.groups == len(found.rows) else await self._report(who, asked, ("day",), MAX_ROWS)
        totals: dict[str, int] = {}
        for row in days.rows:
            totals[row.keys[0]] = totals.get(row.keys[0], 0) + measured(row.totals, asked.measure)
        values = {
            (row.keys[0], keys.get(row.keys[1], row.keys[1]) or "none"): measured(row.totals, asked.measure)
            for row in found.rows
            if asked.split is not None
        }
        return chart(values, totals, asked.period.first, asked.period.last)

    async def _report(self, who: Principal, asked: Question, by: tuple[Dimension, ...], limit: int) -> UsageReport:
        span = asked.period
        return await report(
            self._bench, who, by, since=span.first, until=span.last, tenant_id=asked.tenant, limit=limit
        )

    async def _key_names(self, who: Principal) -> Mapping[str, str]:
        """What people call their keys; the ledger knows them by id."""
        records = await self._bench.store.keys.list(None if who.is_owner else who.tenant_id)
        return {record.key_id: f"{record.name} · {record.key_id[:ID_CHARS]}" for record in records if record.name}


def _choices(before: str, names: Sequence[str], none: str = "") -> list[tuple[str, str]]:
    return [*([(none, "")] if none else []), *((f"{before} {name}", name) for name in names)]


def _may_ask(who: Principal, name: Dimension) -> bool:
    """Whether a dimension can tell the caller anything: a user sees one tenant, and without `runs` one user."""
    return who.is_owner or (name != "tenant" and (name != "user" or who.may("runs")))
