"""The command `pilothouse`: serve, worker, ask, ingest, collections, eval, keys, switch, approvals, audit, usage,
config, doctor, mlflow, backup, restore, encryption, erase, tools.

Commands other than `serve` open the same workbench on the same state; they may run beside a server.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.commands.approvals import add_approvals
from app.commands.audit import add_audit
from app.commands.backup import add_backup
from app.commands.collections import collections
from app.commands.encryption import add_encryption
from app.commands.erase import add_erase
from app.commands.tools import add_tools
from app.records import SCOPES, AnswerCard, Mode, Principal, RunRequest, Scope
from app.settings import Settings, quiet_libraries
from graphs.errors import Invalid, Missing, PilothouseError

if TYPE_CHECKING:
    from app.config.approvals import ApprovalConfig
    from app.services.quota.reconcile import Reconciliation
    from app.services.quota.usage import UsageReport
    from app.services.store.store import Store
    from app.services.switches.switches import Switch
    from app.workbench import Workbench

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Pilothouse: an AI backend that you can open up.")
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
app.add_typer(keys, name="keys")
config = typer.Typer(no_args_is_help=True, help="Look at the gateway's configuration file.")
app.add_typer(config, name="config")
switch = typer.Typer(no_args_is_help=True, help="Switch a tenant, a key or a model off, in every process, and on.")
app.add_typer(switch, name="switch")
usage = typer.Typer(help="Report what was used and what it cost; compare it with a provider's bill.")
app.add_typer(usage, name="usage")

PIPED_CHARS: Final = 240  # of a line in a file or a pipe, where nothing is to be cut to the width of a screen


def _console(*, stderr: bool) -> Console:
    return Console(stderr=stderr, width=None if (sys.stderr if stderr else sys.stdout).isatty() else PIPED_CHARS)


out, err = _console(stderr=False), _console(stderr=True)
T = TypeVar("T")
OPERATOR = Principal("default", "operator", frozenset({"owner"}), "cli")


def settings() -> Settings:
    """The settings of this process; a wrong one ends the command, naming its variable."""
    quiet_libraries()
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(["PILOTHOUSE", *(str(part).upper() for part in problem["loc"])])
            err.print(f"[red]{name}[/]: {problem['msg']}" if problem["loc"] else f"[red]settings[/]: {problem['msg']}")
        raise typer.Exit(2) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; a failure we know becomes one line and exit code 1."""
    try:
        return asyncio.run(work)
    except PilothouseError as error:
        err.print(f"[red]{error.code}[/]: {error.message}")
        raise typer.Exit(1) from None


@asynccontextmanager
async def opened(*, ready: bool = True) -> "AsyncIterator[Workbench]":
    # Everything heavy hangs on the workbench; `--help` and wrong options should not wait for it.
    from app.workbench import open_workbench

    async with open_workbench(settings().model_copy(update={"export_traces": False})) as bench:
        if ready:
            with err.status("Loading the models and the handbook"):
                await bench.until_ready()
        yield bench


@asynccontextmanager
async def opened_store() -> "AsyncIterator[Store]":
    # No models: a kill switch has to work when they do not, and in a second.
    from app.sealing import open_vault
    from app.services.store.store import Store

    here = settings()
    store = await Store.open(here.store_url, vault=open_vault(here))
    try:
        yield store
    finally:
        await store.close()


def approval_rules() -> "ApprovalConfig":
    from app.models import read_config  # the gateway's libraries take a second

    return read_config(settings()).approvals


app.add_typer(collections(opened, run, out), name="collections")
add_backup(app, settings, run, out, err)
add_audit(app, opened_store, run, out)
add_tools(app, settings, opened_store, OPERATOR.actor, run, out)
add_encryption(app, settings, run, out)
add_erase(app, opened, OPERATOR.actor, run, out)
add_approvals(app, opened_store, approval_rules, run, out)


@app.callback(invoke_without_command=True)
def main(show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show_version:
        out.print(version("pilothouse"))
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; PORT or PILOTHOUSE_PORT otherwise.")] = None,
) -> None:
    """Serve API and console."""
    chosen: dict[str, Any] = {"host": host, "port": port if port is not None else os.environ.get("PORT")}
    here = settings()
    updates = {name: value for name, value in chosen.items() if value is not None}
    try:
        here = Settings.model_validate(here.model_dump() | updates)
    except ValidationError:
        err.print("[red]PORT[/]: a port is a number from 0 to 65535")
        raise typer.Exit(2) from None
    from app.main import serve as serve_app  # FastAPI, LangGraph and the rest take a second to import

    sys.exit(serve_app(here))


@app.command()
def worker() -> None:
    """Perform jobs and serve nobody; start as many as there is work for."""
    here = settings()
    from app.worker import work  # it loads what `--help` should not wait for

    work(here)


@app.command()
def ask(
    question: str,
    mode: Annotated[str, typer.Option(help="chat, rag or agent.")] = "rag",
    collection: Annotated[str | None, typer.Option(help="Collection to search; the handbook if none is named.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to answer with.")] = None,
) -> None:
    """Ask one question and print the answer with its citations."""

    async def work() -> AnswerCard:
        if mode not in ("chat", "rag", "agent"):
            raise typer.BadParameter("mode is chat, rag or agent", param_hint="--mode")
        chosen: Mode = mode  # type: ignore[assignment]
        request = RunRequest(question, chosen, collection=collection, model=model, feature="cli")
        async with opened() as bench:
            run_id = await bench.runner.start(OPERATOR, request)
            async with aclosing(bench.runner.events(OPERATOR, run_id)) as events:
                async for event in events:
                    if event.type == "message.delta":
                        out.print(event.data["text"], end="", markup=False, highlight=False)
            return await bench.runner.card(OPERATOR, run_id)

    _show(run(work()))


def _show(card: AnswerCard) -> None:
    out.print()
    for citation in card.citations:
        where = f"{citation.title}: {citation.heading}" if citation.heading else citation.title
        out.print(f"  [{citation.number}] ", where, f" ({citation.score:.2f})", markup=False, sep="", style="dim")
    if card.status == "waiting":
        tool = card.tools[-1]
        out.print(f"Waits for approval {card.pending_approval}: {tool.name} {tool.arguments}", markup=False)
    if card.error is not None:
        err.print(f"[red]{card.error.code}[/]: {card.error.message}")
        raise typer.Exit(1)
    summary = f"{card.model} · {card.latency_ms / 1000:.1f} s · {card.validation} · run {card.request_id}"
    out.print(summary, style="dim", markup=False, highlight=False)


@app.command()
def ingest(
    sources: Annotated[list[str], typer.Argument(help="Files, folders, http and https URLs, s3://bucket/prefix/.")],
    collection: Annotated[str, typer.Option(help="Collection to put them into; made if it is new.")],
    tenant: Annotated[str, typer.Option(help="Tenant that owns them.")] = "default",
    allow_groups: Annotated[
        str | None, typer.Option(help='Groups that may see them, with commas between; "" for everybody.')
    ] = None,
) -> None:
    """Ingest PDF, Office, CSV, HTML, Markdown, text, mail and JSON; a file that fails says why and stops no other."""
    from app.commands.ingest import Shown, found_files, ingest_found, is_url  # the readers: --help does not wait

    urls = [each for each in sources if is_url(each)]
    paths = [Path(each) for each in sources if not is_url(each)]
    if absent := [str(path) for path in paths if not path.exists()]:
        raise typer.BadParameter(f"there is no {absent[0]}", param_hint="SOURCES")
    files = found_files(paths)
    if not files and not urls:
        err.print("There is no file of a type that is read.")
        raise typer.Exit(1)

    async def work() -> Shown:
        async with opened() as bench:
            return await ingest_found(bench, tenant, collection, files, urls, err, _groups(allow_groups))

    shown = run(work())
    out.print(shown.table())
    for name, reason in shown.failed.items():
        err.print(f"[red]{escape(name)}[/]: {escape(reason)}")
    out.print(f"{shown.held} of {shown.total} documents are in {collection}.")
    if shown.failed:
        raise typer.Exit(1)


def _groups(named: str | None) -> list[str] | None:
    return None if named is None else [group.strip() for group in named.split(",") if group.strip()]


@app.command("eval")
def evaluate(
    suite: Annotated[str, typer.Argument(help="Name of a suite.")] = "handbook",
    split: Annotated[str, typer.Option(help="dev (to choose by) or test (to report).")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="An evenly spread sample of that many questions.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Instead of the suite's models; may be repeated.")] = None,
) -> None:
    """Run an evaluation suite and log it to MLflow."""
    # Evals stand to the right of app on the line, so app knows them by name only.
    (entry,) = entry_points(group="pilothouse.evals", name="run")
    raise typer.Exit(
        run(entry.load()(settings(), suite=suite, split=split, limit=limit, models=tuple(model or ()), console=out))
    )


@app.command()
def doctor() -> None:
    """Check that everything a run needs is there and works."""

    async def work() -> list[tuple[str, bool, str]]:
        async with opened() as bench:
            return await bench.examine()

    table = Table("check", "", "finding", box=None, pad_edge=False)
    checks = run(work())
    for name, good, finding in checks:
        table.add_row(name, "[green]ok[/]" if good else "[red]bad[/]", finding)
    out.print(table)
    if not all(good for _, good, _ in checks):
        raise typer.Exit(1)


@app.command()
def mlflow(port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000) -> None:
    """Open MLflow's own UI on loopback, over the runs of this installation."""
    here = settings()
    from app.telemetry.server import mlflow_server  # starts a process; MLflow itself is imported there

    raise typer.Exit(mlflow_server(here.tracking_uri, here.mlruns / "artifacts", port))


@config.command("check")
def check_config(
    path: Annotated[
        Path | None, typer.Argument(help="The file; PILOTHOUSE_CONFIG or ./pilothouse.yaml if absent.")
    ] = None,
) -> None:
    """Check the file, say who may use what, and run the examples that it contains."""
    from app import check  # the models' libraries take a second to import
    from app.config.answers import answer_lines
    from app.config.approvals import approval_lines
    from app.config.guards import guard_lines
    from app.config.load import load
    from app.config.policy import policy_lines
    from app.config.retention import retention_lines
    from app.services.tools.builtins import builtin_faults

    chosen = path or settings().config or settings().default_config

    async def work() -> bool:
        read = load(chosen, checks=(builtin_faults,))
        prices = Table("model", "USD per million tokens, in / out", "price from", box=None, pad_edge=False)
        for row in check.models(read):
            prices.add_row(*row)
        rights = Table("who", "may use", "within", box=None, pad_edge=False)
        for entry in check.entries(read):
            rights.add_row(entry.who, ", ".join(entry.models), "\n".join(entry.limits))
        ruling = _lines(policy_lines(read.tool_policy), "calls", "become")
        deciding = _lines(approval_lines(read.approvals), "calls", "decided by", "how")
        guarding = _lines(guard_lines(read.guards), "questions of", "looked through for")
        answering = _lines(answer_lines(read.answers), "answers of", "policy")
        keeping = _lines(retention_lines(read.retention), "of", "is kept for")
        tools = Table("tool", "risk", "for", "within", box=None, pad_edge=False)
        for tool in check.tools(read):
            tools.add_row(*tool)
        examples = Table("", "example", "found", "", box=None, pad_edge=False)
        verdicts = check.run_examples(read)
        for verdict in verdicts:
            mark = "[red]wrong[/]" if verdict.faults else "[green]holds[/]"
            examples.add_row(str(verdict.number), verdict.asked, verdict.found, "; ".join([mark, *verdict.faults]))
        for table in (prices, rights, tools, ruling, deciding, guarding, answering, keeping, examples):
            if table.row_count:
                out.print(table)
                out.print()
        for note in check.notes(read):
            out.print(f"Note: {note}.", highlight=False)
        return not any(verdict.faults for verdict in verdicts)

    if not run(work()):
        raise typer.Exit(1)
    out.print(f"{chosen} is fine.", highlight=False, soft_wrap=True)


def _lines(rows: Iterable[Iterable[str]], *columns: str) -> Table:
    """A table of texts that are shown as they stand."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option()],
    user: Annotated[str, typer.Option()],
    scope: Annotated[list[str], typer.Option(help=f"One or more of {', '.join(SCOPES)}.")],
    name: Annotated[str, typer.Option()] = "",
    group: Annotated[list[str] | None, typer.Option(help="Group whose documents it sees; may be repeated.")] = None,
) -> None:
    """Make a key and print it once."""
    unknown = set(scope) - set(SCOPES)
    if unknown:
        raise typer.BadParameter(f"unknown scope {', '.join(sorted(unknown))}", param_hint="--scope")
    scopes: list[Scope] = [known for known in SCOPES if known in scope]

    async def work() -> str:
        async with opened(ready=False) as bench:
            _, secret = await bench.store.keys.create(tenant, user, scopes, name, groups=group or ())
            return secret

    out.print(run(work()), markup=False, highlight=False, soft_wrap=True)


@keys.command("list")
def list_keys(tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None) -> None:
    """List keys without their secrets."""

    async def work() -> list[Any]:
        async with opened(ready=False) as bench:
            return await bench.store.keys.list(tenant)

    table = Table("key id", "tenant", "user", "scopes", "groups", "name", "state", box=None, pad_edge=False)
    for key in run(work()):
        state = "revoked" if key.revoked_at else "active"
        groups = escape(", ".join(key.groups))
        table.add_row(key.key_id, key.tenant_id, key.user_id, " ".join(key.scopes), groups, key.name, state)
    out.print(table)


@keys.command("groups")
def regroup_key(
    key_id: str,
    group: Annotated[list[str] | None, typer.Option(help="It is in these and no others; may be repeated.")] = None,
) -> None:
    """Put a key into groups; in none of them it sees what is for everybody."""

    async def work() -> tuple[str, ...]:
        async with opened_store() as store:
            return (await store.keys.regroup(key_id, group or ())).groups

    out.print(f"{key_id} is in {', '.join(run(work())) or 'no group'}.", markup=False, highlight=False)


@keys.command("revoke")
def revoke_key(key_id: str) -> None:
    """Revoke a key at once."""

    async def work() -> None:
        async with opened(ready=False) as bench:
            await bench.store.keys.revoke(key_id, None)

    run(work())
    out.print(f"{key_id} is revoked.", highlight=False)


@keys.command("replace-owner")
def replace_owner() -> None:
    """Make the owner key of this command's environment the owner's; processes with another do not start any more."""
    key = settings().owner_key
    if key is None:
        raise typer.BadParameter("set PILOTHOUSE_OWNER_KEY to the new key")

    async def work() -> None:
        # Not the workbench: with another owner key than the database's it does not open.
        async with opened_store() as store:
            await store.keys.import_owner(key.get_secret_value())

    run(work())
    out.print("The owner has a new key. Restart every process with it.", highlight=False)


SwitchKindArgument = Annotated[str, typer.Argument(help="tenant, key (by its id) or model.")]


@switch.command("off")
def switch_off(
    kind: SwitchKindArgument,
    name: str,
    reason: Annotated[str, typer.Option(help="Told to those who are refused.")] = "",
) -> None:
    """Refuse new calls at once; a server stops what runs within two seconds."""
    from app.services.switches.switches import Switches

    async def work() -> None:
        async with opened_store() as store:
            if kind == "key" and not await store.keys.active(name):
                raise Missing("there is no such key")
            await Switches(store.database).turn_off(kind, name, reason, OPERATOR.actor)

    run(work())
    out.print(f"{kind} {name} is switched off.", markup=False, highlight=False)


@switch.command("on")
def switch_on(kind: SwitchKindArgument, name: str) -> None:
    """Let it call again."""
    from app.services.switches.switches import Switches

    async def work() -> None:
        async with opened_store() as store:
            await Switches(store.database).turn_on(kind, name, OPERATOR.actor)

    run(work())
    out.print(f"{kind} {name} is switched on.", markup=False, highlight=False)


@switch.command("list")
def list_switches() -> None:
    """List what is switched off."""
    from app.services.switches.switches import Switches

    async def work() -> "list[Switch]":
        async with opened_store() as store:
            return await Switches(store.database).list()

    table = Table("kind", "name", "since (UTC)", "by", "reason", box=None, pad_edge=False)
    for off in run(work()):
        since = f"{off.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(off.kind, escape(off.name), since, escape(off.by), escape(off.reason))
    out.print(table)


@usage.callback(invoke_without_command=True)
def show_usage(
    context: typer.Context,
    by: Annotated[
        str, typer.Option(help="One or two of tenant, user, feature, model, provider, day, run, ...")
    ] = "day",
    since: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Groups, the dearest first.")] = 200,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a file for a spreadsheet.")] = False,
) -> None:
    """Report usage by any one or two dimensions, of this month unless told otherwise."""
    if context.invoked_subcommand is not None:
        return
    from app.commands.usage import usage_table  # SQLAlchemy, which --help does not wait for
    from app.services.quota.usage import UsageBook
    from app.usage import usage_csv

    last = (until or datetime.now(UTC)).date()
    first = since.date() if since is not None else last.replace(day=1)
    names: Any = tuple(part.strip() for part in by.split(","))

    async def work() -> "UsageReport":
        async with opened_store() as store:
            return await UsageBook(store.database).report(
                group_by=names, tenant_id=tenant, since=first, until=last, limit=limit
            )

    found = run(work())
    if as_csv:
        sys.stdout.writelines(usage_csv(found))
    else:
        out.print(usage_table(found))


@usage.command("reconcile")
def reconcile_usage(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The provider's export, CSV.")],
    provider: Annotated[str | None, typer.Option(help="Only this provider's calls of ours.")] = None,
) -> None:
    """Compare a provider's export with the ledger, to the cent; exit code 1 where a line does not agree."""
    from app.commands.usage import reconciliation_table  # as above
    from app.models import read_config
    from app.services.quota.usage import UsageBook

    async def work() -> "Reconciliation":
        try:
            export = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise Invalid(f"{file.name} is not UTF-8", field="export") from error
        vendor_names = {name: model.model for name, model in read_config(settings()).models.items()}
        async with opened_store() as store:
            return await UsageBook(store.database).reconcile(export, provider=provider, vendor_names=vendor_names)

    found = run(work())
    out.print(reconciliation_table(found))
    if not found.agrees:
        raise typer.Exit(1)
