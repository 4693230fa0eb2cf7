"""What `pilothouse ingest` does and shows: a bar, the document and stage at hand, and a table of what it came to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from errno import EFBIG
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.jobs.objects import is_object
from app.jobs.urls import FETCHED_AT_ONCE, Fetcher
from app.services.ingest.detect import SUFFIXES
from app.services.ingest.ingest import GROUP, Source
from app.services.ingest.ports import Progress as Passed
from app.sight import EVERYTHING
from graphs.errors import PilothouseError

if TYPE_CHECKING:
    from app.workbench import Workbench

GROUP_BYTES = 64 << 20  # of files that are in memory at once, one at the least


class Shown:
    """Gathers what the ingest reports and moves the bar by it."""

    def __init__(self, bar: Progress, total: int) -> None:
        self.total, self.failed = total, dict[str, str]()
        self._bar = bar
        self._task = bar.add_task("Ingesting", total=total)
        self._happened: Counter[str] = Counter()
        self._took_s: dict[str, float] = {}
        self._chunks = 0

    def __call__(self, passed: Passed) -> None:
        whole = passed.document_id.encode(errors="replace").decode()  # a file's name need not be text
        name = escape(whole[-40:])
        if passed.happened is None:
            self._took_s[str(passed.stage)] = self._took_s.get(str(passed.stage), 0.0) + passed.took_s
            self._bar.update(self._task, description=f"{name} [dim]{passed.stage}[/]")
            return
        self._happened[passed.happened] += 1
        self._chunks += passed.chunks
        if passed.happened == "failed":
            self.failed[whole] = passed.reason
        self._bar.update(self._task, advance=1, description=f"{name} [dim]{passed.happened}[/]")

    @property
    def held(self) -> int:
        """Documents that are in by now."""
        return self._happened.total() - self._happened["failed"]

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for happened in ("added", "replaced", "unchanged", "failed"):
            table.add_row(happened, f"{self._happened[happened]} documents")
        table.add_row("held", f"{self._chunks} chunks")
        for stage, took_s in self._took_s.items():
            table.add_row(stage, f"{took_s:.1f} s")
        return table


def is_url(named: str) -> bool:
    return is_object(named) or named.lower().startswith(("http://", "https://"))


def found_files(paths: Sequence[Path]) -> Mapping[str, Path]:
    """Files by the id that they will have: their way from the folder that was named, or their name alone."""
    files: dict[str, Path] = {}
    for root in paths:
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file() and path.suffix.lower() in SUFFIXES:
                files[path.name if root.is_file() else path.relative_to(root).as_posix()] = path
    return files


async def ingest_found(
    bench: "Workbench",
    tenant: str,
    collection: str,
    files: Mapping[str, Path],
    urls: Sequence[str],
    console: Console,
    allow_groups: Sequence[str] | None = None,
) -> Shown:
    """A URL of a bucket stands for all objects under it.

    Raises Invalid for the collection's name, what listing a bucket, the index and the store raise; a document's own
    failure is shown.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    fetcher = Fetcher.of(bench.config.outbound.documents, bench.settings.max_upload_bytes)

    async def fetch(url: str) -> Source:
        return await (bench.objects.source(tenant, url) if is_object(url) else fetcher.source(url))

    named = [await bench.objects.listed(tenant, url) if is_object(url) else [url] for url in urls]
    found = [url for each in named for url in each]
    with Progress(*columns, console=console) as bar:
        shown = Shown(bar, len(files) + len(found))

        async def take_in(found: Sequence[Source]) -> None:
            group = [replace(each, allow_groups=allow_groups) for each in found]
            await bench.ingest.add_batch(tenant, collection, group, shown, sight=EVERYTHING)

        try:
            async for group in _read(files, bench.settings.max_upload_bytes, shown):
                await take_in(group)
            async for group in _fetched(found, fetch, shown):
                await take_in(group)
        except asyncio.CancelledError:  # Ctrl-C
            console.print(
                f"Stopped: {shown.held} of {shown.total} documents are in; the same command takes in the rest."
            )
            raise
    return shown


async def _read(files: Mapping[str, Path], limit_bytes: int, shown: Shown) -> AsyncIterator[list[Source]]:
    group: list[Source] = []
    for name, path in files.items():
        try:
            content = await asyncio.to_thread(_content, path, limit_bytes)
        except OSError as error:
            shown(Passed(name, None, happened="failed", reason=error.strerror or str(error)))
            continue
        if group and (len(group) == GROUP or len(content) + sum(len(each.content) for each in group) > GROUP_BYTES):
            yield group
            group = []
        group.append(Source(name, content, filename=path.name, trust="operator"))
    if group:
        yield group


async def _fetched(
    urls: Sequence[str], fetch: Callable[[str], Awaitable[Source]], shown: Shown
) -> AsyncIterator[list[Source]]:
    async def source(url: str) -> Source | None:
        try:
            return await fetch(url)
        except PilothouseError as error:
            shown(Passed(url, None, happened="failed", reason=error.message))
            return None

    for at in range(0, len(urls), FETCHED_AT_ONCE):
        found = await asyncio.gather(*map(source, urls[at : at + FETCHED_AT_ONCE]))
        if group := [each for each in found if each is not None]:
            yield group


def _content(path: Path, limit_bytes: int) -> bytes:
    """Raises OSError, for a file that is too large too."""
    with path.open("rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OSError(EFBIG, f"the file has more than {limit_bytes} bytes")
    return content
