"""`pilothouse collections`: a rebuild, its verdict and the way back, from a terminal."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from app.builds import Builds
from app.cli import run
from app.commands.collections import collections
from app.services.ingest.ingest import Ingest
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.golden import GoldenQuestions
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.rebuild import Rebuild
from app.services.store.store import Store
from app.settings import Settings

TEXTS = {"harbour": "The pilot boards at the outer buoy.", "\x1b[31mmenu": "On Friday fish is cooked."}


async def forgotten(_: str) -> None:
    """No answers are kept here."""


class Terminal:
    """The commands over the real index and store of a folder, without the models that they never ask."""

    def __init__(self, home: Path, embedder: MiniLmEmbedder) -> None:
        self.home, self.embedder = home, embedder

    @asynccontextmanager
    async def opened(self, *, ready: bool = True) -> AsyncIterator[Any]:
        store = await Store.open(Settings.offline(self.home).store_url)
        library = await Library.open(self.home / "lance", self.embedder)
        try:
            yield SimpleNamespace(
                library=library,
                embedder=self.embedder,
                rebuild=Rebuild(library),
                builds=Builds(library, store.documents, GoldenQuestions(store.database), forgotten),
                maintenance=Maintenance(library, self.home / "lance"),
                golden=GoldenQuestions(store.database),
                ingest=Ingest(library, store.documents),
            )
        finally:
            await library.close()
            await store.close()

    def __call__(self, *arguments: str, answer: str = "") -> tuple[int, str]:
        shown = StringIO()
        group = collections(self.opened, run, Console(file=shown, width=200))
        app = typer.Typer()
        app.add_typer(group, name="collections")
        result: Result = CliRunner().invoke(app, ["collections", *arguments], input=answer)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, shown.getvalue()


@pytest.fixture
def terminal(tmp_path: Path, embedder: MiniLmEmbedder) -> Terminal:
    made = Terminal(tmp_path, embedder)

    async def fill() -> None:
        async with made.opened() as bench:
            for name, text in TEXTS.items():
                await bench.ingest.add("default", "notes", name.replace("\x1b", ""), text)

    asyncio.run(fill())
    return made


def golden(folder: Path, *items: dict[str, str]) -> str:
    path = folder / "golden.jsonl"
    path.write_text("\n".join(json.dumps(item) for item in items))
    return str(path)


def test_a_rebuild_is_judged_promoted_and_rolled_back(terminal: Terminal, tmp_path: Path) -> None:
    code, told = terminal("rebuild", "notes")
    assert (code, "golden questions" in told) == (1, True)
    questions = golden(tmp_path, {"question": "\x1b[31mwhere does the pilot board?", "documentId": "harbour"})
    code, told = terminal("golden", "notes", "--add", questions)
    assert (code, "\x1b" in told, "harbour" in told) == (0, False, True)
    code, told = terminal("promote", "notes", "--min-recall", "1.0", "--slack-ms", "60000")
    assert (code, "answers" in told) == (0, True), told
    live = [line for line in terminal("versions", "notes")[1].splitlines() if line.endswith("live")]
    assert live
    assert all("." in line.split()[0] for line in live)
    code, told = terminal("rollback", "notes")
    assert (code, "." in told.split()[0]) == (0, False)
    assert terminal("optimise", "notes")[0] == 0


def test_a_line_that_is_no_question_is_named(terminal: Terminal, tmp_path: Path) -> None:
    questions = golden(tmp_path, {"question": "where?", "documentId": "harbour"}, {"question": "who?"})
    assert terminal("golden", "notes", "--add", questions)[0] == 1
    assert "harbour" not in terminal("golden", "notes")[1]


def test_a_reset_asks_first(terminal: Terminal) -> None:
    assert terminal("reset", "notes", answer="n\n")[0] == 1
    assert "2" in terminal("versions", "notes")[1]
    assert terminal("reset", "notes", answer="y\n")[0] == 0
    assert terminal("promote", "notes")[0] == 1


@pytest.mark.parametrize("command", ["versions", "rebuild", "promote", "rollback", "optimise", "golden"])
def test_an_unknown_collection_ends_with_1(terminal: Terminal, command: str) -> None:
    assert terminal(command, "nothing")[0] == 1
