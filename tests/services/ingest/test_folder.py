"""A folder on the command line: what is taken in, under which ids, and what is shown of it."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

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
