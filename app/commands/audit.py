"""`pilothouse audit`: what the trail says, and whether it is whole."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.telemetry.redact import printable

if TYPE_CHECKING:
    from app.services.audit import Entry, Verdict
    from app.services.store.store import Store


def add_audit(
    app: typer.Typer,
    opened_store: "Callable[[], AbstractAsyncContextManager[Store]]",
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    out: Console,
) -> None:
    """Add the group, over the CLI's own way to open the store, to run a coroutine, and to print."""
    audit = typer.Typer(no_args_is_help=True, help="Read the audit trail and check that nobody changed it.")
    app.add_typer(audit, name="audit")

    @audit.command("list")
    def entries(
        tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    ) -> None:
        """Print who did what, the newest first."""

        async def work() -> "list[Entry]":
            async with opened_store() as store:
                return await store.audit.latest(tenant, limit)

        table = Table("number", "at (UTC)", box=None, pad_edge=False)
        for name in ("tenant", "by", "did", "to", "facts"):
            table.add_column(name, overflow="fold", no_wrap=name == "did")
        for entry in run(work()):
            facts = " ".join(f"{name}={value}" for name, value in entry.facts.items())
            by = entry.user_id or entry.person_id or "the platform"
            told = (entry.tenant_id, by, entry.action, entry.subject, facts)
            at = f"{entry.at:%Y-%m-%d %H:%M:%S}"
            table.add_row(str(entry.sequence), at, *(Text(printable(each)) for each in told))
        out.print(table)

    @audit.command()
    def verify(
        anchor: Annotated[
            list[str] | None,
            typer.Option(help="NUMBER:DIGEST of an entry, as a log kept elsewhere has it; may be repeated."),
        ] = None,
    ) -> None:
        """Compute the chain anew. Exit code 1 names the first entry that does not follow from those before it."""
        anchors = dict(_anchor(each) for each in anchor or ())

        async def work() -> "Verdict":
            async with opened_store() as store:
                return await store.audit.verify(anchors)

        found = run(work())
        if found.broken_at is not None:
            out.print(f"[red]broken[/] at entry {found.broken_at}: {found.why}", highlight=False)
            raise typer.Exit(1)
        out.print(f"{found.count:,} entries, each follows from the one before it.", highlight=False)
        out.print(f"{found.count}:{found.head}", highlight=False, soft_wrap=True)
        if not anchors:
            out.print("Keep that line elsewhere: with --anchor it also shows entries cut off at the end.")


def _anchor(told: str) -> tuple[int, str]:
    number, _, digest = told.partition(":")
    if not (number.isascii() and number.isdecimal() and len(digest) == 64):
        raise typer.BadParameter(f"{told!r} is not NUMBER:DIGEST", param_hint="--anchor")
    return int(number), digest
