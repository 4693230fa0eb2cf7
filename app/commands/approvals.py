"""`pilothouse approvals`: tool calls that wait for people, looked at and decided by whoever has the machine's shell.

A decision is written into the store that a server runs on, which goes on with the run within seconds. Arguments are
changed where the tool is at hand to check them: over the API and in the console.
"""

import json
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.records import ApprovalState, Principal
from app.telemetry.redact import printable
from graphs.types import Decision

if TYPE_CHECKING:
    from app.config.approvals import ApprovalConfig
    from app.services.store.records import ApprovalRecord, Page
    from app.services.store.store import Store

Tenant = Annotated[str, typer.Option(help="Whose call it is.")]
Comment = Annotated[str, typer.Option(help="Told to the agent.")]
OPERATOR = "operator"


def add_approvals(
    app: typer.Typer,
    opened_store: "Callable[[], AbstractAsyncContextManager[Store]]",
    rules: "Callable[[], ApprovalConfig]",
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    out: Console,
) -> None:
    """Add the group, over the CLI's own ways to open the store, to read the rules, to run a coroutine, and to print."""
    approvals = typer.Typer(no_args_is_help=True, help="Look at tool calls that wait for people, and decide them.")
    app.add_typer(approvals, name="approvals")

    @approvals.command("list")
    def listed(
        tenant: Tenant = "default",
        state: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(ApprovalState))}.")] = "pending",
        limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    ) -> None:
        """List calls, the newest first; pending is all that waits, for a second person too."""
        if state not in get_args(ApprovalState):
            raise typer.BadParameter(f"there is no state {state}", param_hint="--state")
        wanted: Any = state

        async def work() -> "Page[ApprovalRecord]":
            async with opened_store() as store:
                return await store.approvals.list(tenant, wanted, limit)

        table = Table("approval", "tool", "risk", "state", "for", "waits until (UTC)", box=None, pad_edge=False)
        table.columns[0].min_width = 32  # an id that is cut can be given to no other command
        for one in run(work()).items:
            told = (one.approval_id, one.tool, one.risk, _state(one), one.user_id, f"{one.expires_at:%Y-%m-%d %H:%M}")
            table.add_row(*(Text(printable(each)) for each in told))
        out.print(table)

    @approvals.command()
    def show(approval_id: str, tenant: Tenant = "default") -> None:
        """Print a call: what would run, why it has to be asked for, and where its arguments come from."""

        async def work() -> "ApprovalRecord":
            async with opened_store() as store:
                return await store.approvals.get(approval_id, tenant)

        _show(run(work()), out)

    @approvals.command()
    def approve(approval_id: str, tenant: Tenant = "default", comment: Comment = "") -> None:
        """Let it run, with the arguments that stand."""
        decide(approval_id, tenant, "approve", comment)

    @approvals.command()
    def deny(approval_id: str, tenant: Tenant = "default", comment: Comment = "") -> None:
        """Have it not run; of two persons one is enough."""
        decide(approval_id, tenant, "deny", comment)

    def decide(approval_id: str, tenant: str, decision: Decision, comment: str) -> None:
        from app.decisions import Decisions  # the store, which --help does not wait for

        who = Principal(tenant, OPERATOR, frozenset({"approvals"}), "cli")

        async def work() -> "ApprovalRecord":
            async with opened_store() as store:
                decisions = Decisions(store, store.database.clock, rules())
                return await decisions.decide(who, approval_id, decision, comment=comment)

        decided = run(work())
        out.print(f"{decided.tool} for {decided.user_id}: {_state(decided)}.", markup=False, highlight=False)


def _state(one: "ApprovalRecord") -> str:
    return f"approved by {one.first_by}, waits for another" if one.state == "approved_once" else one.state


def _show(one: "ApprovalRecord", out: Console) -> None:
    told = {
        "tool": one.tool,
        "risk": one.risk,
        "state": _state(one),
        "for": one.user_id,
        "run": one.run_id,
        "asked (UTC)": f"{one.created_at:%Y-%m-%d %H:%M:%S}",
        "waits until": f"{one.expires_at:%Y-%m-%d %H:%M:%S}",
        "persons": str(one.needs),
    }
    if one.decided_by:
        told["decided by"] = one.decided_by
    if one.comment:
        told["comment"] = one.comment
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, value in told.items():
        table.add_row(Text(name, style="dim"), Text(printable(value)))
    for reason in one.reasons:
        table.add_row(Text("because", style="dim"), Text(printable(reason)))
    for name, argument in one.standing.items():
        text = argument if isinstance(argument, str) else json.dumps(argument, ensure_ascii=False)
        table.add_row(Text(printable(name)), Text(printable(text)))
    for origin in one.origins:
        text = f"{origin['argument']} repeats {origin['kind']} {origin['name']} ({origin['trust']})"
        table.add_row(Text("origin", style="dim"), Text(printable(text)))
    out.print(table)
