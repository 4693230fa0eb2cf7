"""What `pilothouse usage` prints: sums and comparisons as tables. Names come from callers and are printed as text."""

from rich.table import Table
from rich.text import Text

from app.console.figures import portion
from app.services.quota.reconcile import Compared, Reconciliation
from app.services.quota.totals import Totals
from app.services.quota.usage import UsageReport
from app.sheet import dollars
from app.telemetry.redact import printable

_SUMS = ("calls", "failed", "tokens in", "tokens out", "cost USD", "estimated")


def usage_table(found: UsageReport) -> Table:
    """A line a group, the dearest first, and the total over all groups."""
    table = Table(*found.group_by, box=None, pad_edge=False, show_footer=True)
    for name, total in zip(_SUMS, _cells(found.total), strict=True):
        table.add_column(name, total, justify="right")
    hidden = found.groups - len(found.rows)
    table.columns[0].footer = f"and {hidden:,} more" if hidden else "total"
    for row in found.rows:
        table.add_row(*(_text(key) for key in row.keys), *_cells(row.totals))
    return table


def reconciliation_table(found: Reconciliation) -> Table:
    """A line a day and model; what does not agree to the cent is marked in a word of its own."""
    table = Table("day", "model", box=None, pad_edge=False)
    for name in ("ours USD", "theirs USD", "difference USD", "difference tokens", "estimated"):
        table.add_column(name, justify="right")
    table.add_column("")
    for line in found.lines:
        table.add_row(line.day.isoformat(), _text(line.model), *_compared(line), _verdict(line))
    if found.theirs_micros is not None and found.difference_micros is not None:
        sums = (f"{dollars(found.ours_micros):,}", f"{dollars(found.theirs_micros):,}")
        verdict = Text("agrees", style="green") if found.agrees else Text("differs", style="red")
        table.add_row("total", "", *sums, f"{dollars(found.difference_micros):+,}", "", "", verdict)
    return table


def _cells(totals: Totals) -> tuple[str, ...]:
    estimated = totals.estimated_micros / totals.cost_micros if totals.cost_micros else totals.estimated_share
    return (
        f"{totals.calls:,}",
        f"{totals.failed:,}",
        f"{totals.input_tokens:,}",
        f"{totals.output_tokens:,}",
        f"{dollars(totals.cost_micros):,}",
        portion(estimated),
    )


def _compared(line: Compared) -> tuple[str, ...]:
    theirs = line.theirs.cost_micros if line.theirs is not None else None
    return (
        f"{dollars(line.ours.cost_micros):,}",
        "" if theirs is None else f"{dollars(theirs):,}",
        "" if line.difference_micros is None else f"{dollars(line.difference_micros):+,}",
        "" if line.difference_tokens is None else f"{line.difference_tokens:+,}",
        f"{line.ours.estimated:,}" if line.ours.estimated else "",
    )


def _verdict(line: Compared) -> Text:
    if line.agrees:
        return Text("agrees", style="green")
    return Text("differs" if line.theirs is not None else "not billed", style="red")


def _text(name: str) -> Text:
    return Text(printable(name)) if name else Text("none", style="dim")
