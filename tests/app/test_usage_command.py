"""`pilothouse usage`: sums in the terminal and as a file, and a bill against the ledger."""

import asyncio
import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.services.store.store import Store
from app.settings import Settings
from tests.ledger_rows import book, row

MARCH = ("--from", "2025-03-01", "--to", "2025-03-31")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    async def fill() -> None:
        store = await Store.open(Settings.offline(tmp_path).store_url)
        day = datetime(2025, 3, 2, 12, tzinfo=UTC)
        await book(
            store,
            row("acme", "ann", "big", 1_500_000, day),
            row("\x1b[31m=cmd[/red]", "eve", "small", 20_000, day, estimated=True),
        )
        await store.close()

    asyncio.run(fill())
    return tmp_path


def usage(home: Path, *arguments: str) -> Result:
    environment = {"PILOTHOUSE_HOME": str(home), "COLUMNS": "200"}
    return CliRunner().invoke(app, ["usage", *arguments], env=environment)


def test_sums_are_printed_with_their_total(home: Path) -> None:
    told = usage(home, "--by", "model", *MARCH)
    assert told.exit_code == 0
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["model", "big", "small", "total"]
    assert "1.520000" in told.stdout


def test_x07_x08_a_hostile_name_neither_colours_the_terminal_nor_computes_in_a_sheet(home: Path) -> None:
    assert "\x1b" not in usage(home, "--by", "tenant", *MARCH).stdout
    assert "=cmd[/red]" in usage(home, "--by", "tenant", *MARCH).stdout
    lines = list(csv.reader(usage(home, "--by", "tenant,model", "--csv", *MARCH).stdout.splitlines()))
    assert all(not cell.startswith(("=", "+", "@", "\t")) for line in lines for cell in line)
    assert [line[1] for line in lines] == ["model", "big", "small"]


def test_a_bill_that_differs_by_a_cent_ends_with_exit_code_1(home: Path, tmp_path: Path) -> None:
    export = tmp_path / "export.csv"
    export.write_text("date,model,cost_usd\n2025-03-02,big,1.50\n2025-03-02,small,0.02\n")
    assert usage(home, "reconcile", str(export)).exit_code == 0
    export.write_text("date,model,cost_usd\n2025-03-02,big,1.51\n2025-03-02,small,0.02\n")
    told = usage(home, "reconcile", str(export))
    assert told.exit_code == 1
    # By words: a console that was made for another width wraps its lines.
    assert [word for word in told.stdout.split() if word in {"differs", "agrees"}] == ["differs", "agrees", "differs"]


def test_what_cannot_be_grouped_is_one_line_and_exit_code_1(home: Path) -> None:
    told = usage(home, "--by", "password")
    assert (told.exit_code, "invalid_input" in told.stderr) == (1, True)
