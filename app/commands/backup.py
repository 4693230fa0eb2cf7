"""`pilothouse backup` and `pilothouse restore`: a whole installation into a folder and back."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from app.settings import Settings


def add_backup(
    app: typer.Typer,
    settings: Callable[[], Settings],
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    out: Console,
    err: Console,
) -> None:
    """Add both commands, over the CLI's own way to the settings, to run a coroutine, and to print."""

    @app.command()
    def backup(
        folder: Annotated[Path, typer.Argument(help="Made by the backup; it must not be there yet.")],
        with_secrets: Annotated[
            bool, typer.Option("--with-secrets", help="The keys of contents, owner key and session secret too.")
        ] = (False),
        files_only: Annotated[bool, typer.Option("--files-only", help="Do not miss databases on servers.")] = False,
    ) -> None:
        """Copy the whole installation into a folder, while it is in use."""
        from app.backup import back_up  # SQLAlchemy, which --help does not wait for

        with err.status("Copying; documents that arrive wait for it"):
            made = run(back_up(settings(), folder, with_secrets=with_secrets))
        out.print(f"{folder}: {len(made.files):,} files, {made.size_bytes:,} bytes", markup=False, soft_wrap=True)
        if not with_secrets:
            err.print(
                "The keys that contents are sealed with are not in it. Keep encryption.keys elsewhere: without it "
                "nothing of this backup can be read.",
                soft_wrap=True,
            )
        for left_out in made.not_covered:
            err.print(f"[red]not covered[/]: {left_out}", soft_wrap=True)
        if made.not_covered and not files_only:
            raise typer.Exit(1)

    @app.command()
    def restore(
        folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="What `backup` made.")],
        force: Annotated[bool, typer.Option("--force", help="Move what is in the way aside.")] = False,
        erase_unlisted: Annotated[
            bool, typer.Option("--erase-unlisted", help="Erase what a bucket's index holds beyond the backup.")
        ] = False,
    ) -> None:
        """Put a backup in the place of an installation that does not run."""
        from app.restore import restore as put_back  # as above

        done = run(put_back(settings(), folder, force=force, erase_unlisted=erase_unlisted))
        for path in done.aside:
            out.print(f"What was there before is {path}", markup=False, soft_wrap=True)
        if done.erased:
            out.print(f"{done.erased} documents that the store does not list are not in the index any more.")
        if done.unlisted:
            err.print(
                f"{done.unlisted} documents of the index are newer than the backup: searches find them, no list names "
                "them. Ingest them again, or restore once more with --force --erase-unlisted.",
                soft_wrap=True,
            )
        for tenant_id, collection, document_id in done.lacking:
            name = f"{tenant_id} {collection} {document_id!r}"
            err.print(f"Not searchable, ingest it again: {name}", markup=False, soft_wrap=True)
        for left_out in done.manifest.not_covered:
            err.print(f"[red]not covered[/]: {left_out}", soft_wrap=True)
        out.print(f"The backup of {done.manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC is in place.", highlight=False)
