"""`pilothouse tools`: which tools there are, what they claim to be, and who has answered for that."""

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from difflib import unified_diff
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.records import Actor
from app.settings import Settings
from app.telemetry.redact import printable
from graphs.errors import Missing

if TYPE_CHECKING:
    from app.services.store.store import Store
    from app.services.tools.registry import Entry, Registry


def add_tools(
    app: typer.Typer,
    settings: Callable[[], Settings],
    opened_store: "Callable[[], AbstractAsyncContextManager[Store]]",
    operator: Actor,
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    out: Console,
) -> None:
    """Add the group, over the CLI's own way to open the store, to run a coroutine, and to print."""
    tools = typer.Typer(no_args_is_help=True, help="List tools, show what they claim to be, and accept that.")
    app.add_typer(tools, name="tools")

    @asynccontextmanager
    async def opened() -> "AsyncIterator[Registry]":
        # The tools' and models' libraries: --help does not wait for them.
        from app.models import read_config
        from app.services.tools.registry import open_registry

        config = read_config(settings())
        async with opened_store() as store, open_registry(config, store.database) as registry:
            await registry.looked()
            yield registry

    @tools.command("list")
    def listed() -> None:
        """Print each tool, for whom it is, how it stands and the hash of its definition."""

        async def work() -> "list[Entry]":
            async with opened() as registry:
                return registry.entries()

        table = Table("tool", "kind", "risk", "for", "state", "definition", box=None, pad_edge=False)
        table.columns[0].no_wrap = True
        table.columns[-1].overflow = "fold"
        entries: list[Entry] = run(work())
        for entry in entries:
            risk = entry.spec.risk if entry.spec else entry.grant.risk or ""
            state = f"{entry.state}: {entry.why}" if entry.why else entry.state
            cells = (entry.name, entry.kind, risk, for_whom(entry), state, entry.digest)
            table.add_row(*(Text(printable(cell)) for cell in cells))
        out.print(table)
        if any(entry.state in {"new", "changed"} for entry in entries):
            out.print("What is new or changed is offered to nobody until: pilothouse tools accept NAME")

    @tools.command()
    def show(name: str) -> None:
        """Print a tool's definition, and what is different in it from the one that was accepted."""

        async def work() -> "Entry":
            async with opened() as registry:
                found = next((entry for entry in registry.entries() if entry.name == name), None)
            if found is None or found.spec is None:
                raise Missing(f"there is no tool {name!r} to show" + (f": {found.why}" if found else ""))
            return found

        entry = run(work())
        out.print(f"{entry.name} ({entry.state}) {entry.digest}", highlight=False, soft_wrap=True)
        _print_lines(out, _difference(entry))

    @tools.command()
    def accept(
        name: str,
        definition: Annotated[str, typer.Option("--hash", help="Of the definition that was looked at.")] = "",
    ) -> None:
        """Answer for a tool's definition: from now on, in every process, it is offered again."""

        async def work() -> "tuple[Entry, Entry]":
            async with opened() as registry:
                before = next((entry for entry in registry.entries() if entry.name == name), None)
                after = await registry.accept(name, operator, definition)
                return before or after, after

        before, after = run(work())
        _print_lines(out, _difference(before))
        out.print(f"{name} is accepted as {after.digest}.", markup=False, highlight=False, soft_wrap=True)


def for_whom(entry: "Entry") -> str:
    """The tenants, and the scope that their keys must hold."""
    who = "every tenant" if entry.grant.tenants is None else ", ".join(entry.grant.tenants) or "nobody"
    return f"{who}, {entry.grant.scope}"


def _difference(entry: "Entry") -> list[str]:
    """The definition, its lines marked where it is not the one that was accepted."""
    assert entry.spec is not None, "it was found"
    from app.services.tools.acceptances import text_of  # SQLAlchemy, which --help does not wait for

    now = _pretty(text_of(entry.spec))
    if entry.accepted is None or entry.accepted.digest == entry.digest:
        return now
    return list(unified_diff(_pretty(entry.accepted.definition), now, "accepted", "now", lineterm="", n=1_000))


def _pretty(definition: str) -> list[str]:
    """In ASCII: what hides itself by how it is written is seen."""
    return json.dumps(json.loads(definition), indent=2).splitlines()


def _print_lines(out: Console, lines: list[str]) -> None:
    for line in lines:
        out.print(printable(line), markup=False, highlight=False, soft_wrap=True)
