"""A folder on the command line: what is taken in, under which ids, and what is shown of it."""

import asyncio
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from app.commands import ingest as command
from app.commands.ingest import found_files, ingest_found
from app.config.schema import Config
from app.services.ingest.ingest import Ingest


async def test_a_folder_is_taken_in_and_says_what_became_of_each_file(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.md").write_text("# A\n\nMoored.")
    (folder / "b.csv").write_text("item,cost\nrope,15\n")
    (folder / "empty.txt").write_text("")
    (folder / "large.txt").write_text("x" * 2_000)
    (folder / "gone.txt").symlink_to(tmp_path)
    (folder / "photo.jpg").write_text("no document")
    settings = SimpleNamespace(max_upload_bytes=1_000)
    bench: Any = SimpleNamespace(ingest=ingest, settings=settings, config=Config())
    files = found_files([folder, folder / "b.csv"])
    assert sorted(files) == ["b.csv", "deep/a.md", "empty.txt", "large.txt"]
    console = Console(file=io.StringIO())
    shown = await ingest_found(bench, "acme", "notes", files, [], console)
    assert shown.failed == {"empty.txt": "the document is empty", "large.txt": "the file has more than 1000 bytes"}
    again = await ingest_found(bench, "acme", "notes", files, [], console)
    rows = [list(column.cells) for column in again.table().columns]
    assert dict(zip(*rows, strict=True))["unchanged"] == "2 documents"


async def test_one_that_is_stopped_says_how_far_it_came(
    ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\nMoored.")
    monkeypatch.setattr(command, "GROUP", 1)
    second = asyncio.Event()

    async def add_batch(*given: Any, **named: Any) -> None:
        if given[2][0].filename == "b.md":
            second.set()
            await asyncio.Event().wait()
        await ingest.add_batch(*given, **named)

    bench: Any = SimpleNamespace(
        ingest=SimpleNamespace(add_batch=add_batch), settings=SimpleNamespace(max_upload_bytes=1_000), config=Config()
    )
    console = Console(file=io.StringIO(), width=120)
    running = asyncio.create_task(ingest_found(bench, "acme", "notes", found_files([tmp_path]), [], console))
    await second.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    told = console.file
    assert isinstance(told, io.StringIO)
    assert "Stopped: 1 of 3 documents are in; the same command takes in the rest." in told.getvalue()
