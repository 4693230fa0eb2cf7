"""`pilothouse collections`: versions, builds, golden questions and repairs of a tenant's collections."""

import json
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.telemetry.redact import printable
from graphs.errors import Invalid

if TYPE_CHECKING:
    from app.builds import Built
    from app.services.ingest.chunk import Chunking
    from app.services.retrieval.gate import Golden, Report
    from app.workbench import Workbench

Name = Annotated[str, typer.Argument(help="The collection.")]
Tenant = Annotated[str, typer.Option(help="Tenant that owns it.")]


def collections(
    opened: Callable[..., "AbstractAsyncContextManager[Workbench]"],
    run: Callable[[Coroutine[Any, Any, Any]], Any],
    out: Console,
) -> typer.Typer:
    """The group of commands, over the CLI's own way to a workbench, to run a coroutine, and to print."""
    group = typer.Typer(no_args_is_help=True, help="Versions, builds and golden questions of collections.")

    @group.command("versions")
    def versions(name: Name, tenant: Tenant = "default") -> None:
        """List what a search can be asked "as of", the newest first."""

        async def work() -> Any:
            async with opened(ready=False) as bench:
                return await bench.library.versions(tenant, name)

        table = Table("version", "committed", "rows", "bytes", "chunker", "embedder", "", box=None, pad_edge=False)
        for each in run(work()):
            committed = f"{each.committed_at:%Y-%m-%d %H:%M:%S}"
            made = (each.recipe.chunker or "structure", each.recipe.embedder or "embedded")
            table.add_row(
                *(_text(each.label), committed, f"{each.rows:,}", f"{each.size_bytes:,}", *made, _live(each.live))
            )
        out.print(table)

    @group.command("rebuild")
    def rebuild(
        name: Name,
        tenant: Tenant = "default",
        chunker: Annotated[str | None, typer.Option(help="structure, sentences or tokens; else as it is.")] = None,
        size: Annotated[int | None, typer.Option(help="Tokens of a chunk, with --chunker.")] = None,
        overlap: Annotated[int | None, typer.Option(help="Of them, those that come again in the next chunk.")] = None,
        embedder: Annotated[str | None, typer.Option(help="An embedding model of the file; else as it is.")] = None,
        keep: Annotated[bool, typer.Option("--keep", help="Let the build wait for `promote`.")] = False,
        min_questions: Annotated[int, typer.Option(min=0, help="Golden questions that must be there.")] = 1,
        min_recall: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
        min_ndcg: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
        slack_ms: Annotated[float, typer.Option(min=0, help="Forgiven of a slower search.")] = 5.0,
    ) -> None:
        """Cut and embed all documents anew, beside the live index; promote that if the gate passes."""
        from app.builds import Wish
        from app.services.retrieval.gate import Thresholds

        bounds = Thresholds(
            min_questions=min_questions, min_recall=min_recall, min_ndcg=min_ndcg, latency_slack_ms=slack_ms
        )

        if chunker is None and (size, overlap) != (None, None):
            raise typer.BadParameter("--size and --overlap are of a --chunker")
        chunking = None if chunker is None else run(_chunking(chunker, size, overlap))

        async def work() -> "Built":
            async with opened(ready=False) as bench:
                return await bench.builds.rebuild(
                    tenant, name, Wish(chunking, embedder, keep, bounds), told=_counting(out)
                )

        built = run(work())
        out.print(f"{built.version} is built.", markup=False, highlight=False)
        if built.report is not None:
            _show(built.report, out)

    @group.command("promote")
    def promote(
        name: Name,
        tenant: Tenant = "default",
        min_questions: Annotated[int, typer.Option(min=0, help="Golden questions that must be there.")] = 1,
        min_recall: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
        min_ndcg: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
        slack_ms: Annotated[float, typer.Option(min=0, help="Forgiven of a slower search.")] = 5.0,
    ) -> None:
        """Judge the build that waits and, if it passes, let it answer."""
        from app.services.retrieval.gate import Thresholds

        bounds = Thresholds(
            min_questions=min_questions, min_recall=min_recall, min_ndcg=min_ndcg, latency_slack_ms=slack_ms
        )

        async def work() -> "Report":
            async with opened(ready=False) as bench:
                return await bench.builds.promote(tenant, name, bounds)

        _show(run(work()), out)

    @group.command("rollback")
    def roll_back(name: Name, tenant: Tenant = "default") -> None:
        """Let the build before the last promotion answer again."""

        async def work() -> str:
            async with opened(ready=False) as bench:
                return await bench.builds.roll_back(tenant, name)

        out.print(f"{run(work())} answers.", markup=False, highlight=False)

    @group.command("optimize", hidden=True)
    @group.command("optimise")
    def optimise(name: Name, tenant: Tenant = "default") -> None:
        """Index new rows, join small files, drop old versions, and take erased text from the disk."""
        from app.services.retrieval.place import Place

        async def work() -> tuple[str, tuple[str, ...]]:
            async with opened(ready=False) as bench:
                dropped = await bench.maintenance.optimise(Place(tenant, name))
                return await bench.library.version(tenant, name), dropped

        version, dropped = run(work())
        out.print(f"{version} is optimised.", markup=False, highlight=False)
        if "waiting" in dropped:
            out.print("The build that waited held erased text and is gone; rebuild to have one again.")
        if "before" in dropped:
            out.print("The build to go back to held erased text and is gone.")

    @group.command("reset")
    def reset(name: Name, tenant: Tenant = "default") -> None:
        """Drop the whole index of a collection, damaged or not; ingest its documents again afterwards."""
        from app.services.retrieval.place import Place

        typer.confirm(f"Drop the index of {name}?", abort=True)

        async def work() -> None:
            async with opened(ready=False) as bench:
                await bench.rebuild.start_over(Place(tenant, name))

        run(work())
        out.print(f"{name} is empty; ingest its documents again.", markup=False, highlight=False)

    @group.command("golden")
    def golden(
        name: Name,
        tenant: Tenant = "default",
        add: Annotated[
            Path | None,
            typer.Option(exists=True, dir_okay=False, help="JSON lines of question, documentId and passage."),
        ] = None,
        remove: Annotated[str | None, typer.Option(help="Id of a question to remove.")] = None,
    ) -> None:
        """List the questions that a new build is judged by; add or remove some first."""

        async def work() -> Any:
            async with opened(ready=False) as bench:
                await bench.library.version(tenant, name)
                if add is not None:
                    await bench.golden.add(tenant, name, _golden_from(add.read_text()))
                if remove is not None:
                    await bench.golden.remove(tenant, name, remove)
                return await bench.golden.list(tenant, name)

        table = Table("id", "question", "document", "passage", box=None, pad_edge=False)
        for each in run(work()):
            table.add_row(each.golden_id, _text(each.question), _text(each.document_id), _text(each.passage))
        out.print(table)

    return group


async def _chunking(chunker: str, size: int | None, overlap: int | None) -> "Chunking":
    """Raises Invalid, which the CLI's way to run a coroutine tells."""
    from app.services.ingest.chunk import Chunking

    return Chunking.checked(chunker, size, overlap)


def _counting(out: Console) -> Callable[[int, int], Coroutine[Any, Any, None]]:
    """Says how far a build is, where somebody looks."""

    async def told(done: int, total: int) -> None:
        if out.is_terminal:
            out.print(f"{done:,} of {total:,} documents", end="\r")

    return told


def _golden_from(lines: str) -> "list[Golden]":
    """Raises Invalid, naming the line."""
    from app.services.retrieval.gate import Golden

    found = []
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            found.append(Golden(str(item["question"]), str(item["documentId"]), str(item.get("passage", ""))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(f"line {number} is no golden question: it needs question and documentId") from error
    return found


def _show(report: "Report", out: Console) -> None:
    """Both builds side by side; a refusal ends the command with 1."""
    table = Table("build", "recall", "nDCG@10", "ms", "bytes", box=None, pad_edge=False)
    for build, found in (("new", report.candidate), ("live", report.live)):
        if found is not None:
            table.add_row(
                build, f"{found.recall:.3f}", f"{found.ndcg:.3f}", f"{found.latency_ms:.1f}", f"{found.size_bytes:,}"
            )
    out.print(table)
    for failure in report.failures:
        out.print(Text(failure, style="red"))
    if not report.passed:
        raise typer.Exit(1)
    out.print(f"{report.version} answers.", markup=False, highlight=False)


def _live(live: bool) -> Text:
    return Text("live", style="green") if live else Text("")


def _text(name: str) -> Text:
    return Text(printable(name))
