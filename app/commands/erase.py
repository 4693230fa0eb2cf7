"""`pilothouse erase`: a person, or one conversation, out of everything, with a receipt."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from app.records import Actor

if TYPE_CHECKING:
    from app.erasure import Receipt
    from app.workbench import Workbench


def add_erase(
    app: typer.Typer,
    opened: "Callable[..., AbstractAsyncContextManager[Workbench]]",
    operator: Actor,
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    out: Console,
) -> None:
    """Add the command, over the CLI's own way to a workbench, to run a coroutine, and to print."""

    @app.command()
    def erase(
        tenant: Annotated[str, typer.Option(help="Whose user or conversation it is.")],
        user: Annotated[str, typer.Option(help="The person.")] = "",
        conversation: Annotated[str, typer.Option(help="One conversation instead.")] = "",
        documents: Annotated[
            bool, typer.Option("--documents", help="And the documents and tables that the person uploaded.")
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ) -> None:
        """Erase a person or a conversation everywhere, and print what was found and what stays until when."""
        if not user and not conversation:
            raise typer.BadParameter("name --user or --conversation")
        if not yes:
            typer.confirm(f"Erase {conversation or user} of {tenant}? It cannot be taken back.", abort=True)

        async def work() -> "Receipt":
            from app.services.store.erasure import Subject  # SQLAlchemy, which --help does not wait for

            async with opened(ready=False) as bench:
                return await bench.erasure.erase(Subject(tenant, user, conversation), operator, documents=documents)

        receipt = run(work())
        out.print("Removed:")
        for place, count in receipt.removed.items():
            out.print(f"  {place}: {count:,}", highlight=False)
        out.print("Stays:")
        for line in receipt.stays:
            out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
