"""`pilothouse encryption`: which keys contents are sealed with, and sealing them with a new one."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from app.settings import Settings
from graphs.errors import Invalid

if TYPE_CHECKING:
    from app.resealing import Resealing
    from app.services.store.database import Database
    from app.services.vault import Vault


def add_encryption(
    app: typer.Typer,
    settings: Callable[[], Settings],
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    out: Console,
) -> None:
    """Add the group, over the CLI's own way to the settings, to run a coroutine, and to print."""
    encryption = typer.Typer(no_args_is_help=True, help="See and change the keys that contents are sealed with.")
    app.add_typer(encryption, name="encryption")

    @encryption.command()
    def status() -> None:
        """Print the keys by their ids, and how much is not sealed with the current one."""
        run(_status(settings(), out))

    @encryption.command()
    def rotate(
        new_key: Annotated[
            bool, typer.Option("--new-key/--same-key", help="Make a key first; not where the settings have the keys.")
        ] = True,
    ) -> None:
        """Make a new key and seal everything with it, while servers run. Killed, it goes on with --same-key."""
        run(_rotate(settings(), out, new_key))


async def _status(settings: Settings, out: Console) -> None:
    from app.services.store.vaults import noted_keys

    async with _opened(settings) as (database, vault, resealing):
        current, *others = vault.keyring.key_ids
        out.print(f"sealing with {current}; at hand: {', '.join(others) or 'no other'}", highlight=False)
        out.print(f"needed: {', '.join(await noted_keys(database))}", highlight=False)
        out.print(f"{await resealing.left():,} rows and values are not sealed with {current}.", highlight=False)
        if vault.accepts_plain:
            out.print("Contents of an earlier version lie in the clear until `pilothouse encryption rotate` is done.")


async def _rotate(settings: Settings, out: Console, new_key: bool) -> None:
    from app import sealing
    from app.services.store.vaults import note_key

    async with _opened(settings) as (database, _, resealing):
        if new_key:
            if settings.encryption_keys is not None:
                raise Invalid(
                    "the keys come from PILOTHOUSE_ENCRYPTION_KEYS: put a new one first there, for all processes, "
                    "then `pilothouse encryption rotate --same-key`"
                )
            made = sealing.new_key()
            await note_key(database, made)
            sealing.put_first(sealing.key_file(settings), made)
            out.print(f"The key {made.key_id} is in {sealing.key_file(settings)}.", highlight=False, soft_wrap=True)

        async def told(done: int, total: int) -> None:
            if out.is_terminal:  # elsewhere one line would stand behind the other
                out.print(f"{done:,} of {total:,}", end="\r", highlight=False)

        done = await resealing.run(told)
    out.print(f"{done.rows:,} rows and {done.checkpoints:,} values are sealed with {done.key_id}.", highlight=False)
    if done.retired:
        retired = ", ".join(done.retired)
        out.print(f"Keep {retired} as long as backups from before: nothing else needs it.", highlight=False)


@asynccontextmanager
async def _opened(settings: Settings) -> "AsyncIterator[tuple[Database, Vault, Resealing]]":
    from app.checkpoints import checkpointer  # LangGraph, which --help does not wait for
    from app.resealing import Resealing
    from app.sealing import open_vault
    from app.services.store.store import Store

    vault = open_vault(settings)
    store = await Store.open(settings.store_url, vault=vault)
    try:
        async with checkpointer(settings.store_url, settings.home.resolve() / "checkpoints.db", vault) as saver:
            yield store.database, vault, Resealing(store.database, saver, vault)
    finally:
        await store.close()
