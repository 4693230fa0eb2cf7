"""How commits are shared, where they wait, and what they leave on the disk."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.services.quota import committer as committing
from app.services.quota.committer import Committer, Kind, LedgerUnavailable
from tests.services.quota.kit import books, charge, spend, tenants


def sqlite_url(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'l.db'}"


async def test_what_gathers_while_the_loop_goes_round_is_one_transaction(store_url: str):
    async with books(store_url) as book:
        committer, batches = Committer(book.url), []
        gather = Kind("gather", 0, lambda _, payloads: batches.append(list(payloads)) or payloads)
        assert await asyncio.gather(*(committer.submit(gather, number) for number in range(20))) == list(range(20))
        assert batches == [list(range(20))]
        await committer.close()


async def test_work_is_done_by_kind_and_in_the_order_of_its_arrival(store_url: str):
    async with books(store_url) as book:
        committer, done = Committer(book.url), []
        early = Kind("early", 0, lambda _, payloads: done.extend(payloads) or payloads)
        late = Kind("late", 1, lambda _, payloads: done.extend(payloads) or payloads)
        await asyncio.gather(
            *(committer.submit(kind, name) for kind, name in ((late, "c"), (early, "a"), (late, "d"), (early, "b")))
        )
        assert done == ["a", "b", "c", "d"]
        await committer.close()


async def test_d01_another_writer_keeps_a_commit_waiting_and_nothing_else(tmp_path: Path):
    """SQLite has one writer at a time: the loop goes on meanwhile."""
    async with books(sqlite_url(tmp_path)) as book:
        ledger = book.open()
        await spend(ledger, 1, tenants(100))
        with closing(sqlite3.connect(tmp_path / "l.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            spending = asyncio.create_task(spend(ledger, 1, tenants(100)))
            for _ in range(20):
                await asyncio.sleep(0.002)
            assert not spending.done()
            other.execute("COMMIT")
        await asyncio.wait_for(spending, 10)
        assert book.one("SELECT COUNT(*) FROM ledger WHERE state = 'settled'") == 2


async def test_the_journal_is_folded_in_and_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(committing, "CHECKPOINT_EVERY", 20)
    async with books(sqlite_url(tmp_path)) as book:
        ledger, journal = book.open(), tmp_path / "l.db-wal"
        # The thread folds it in when it gets to that; once it has, the same pages are written again.
        for _ in range(200):
            before = journal.stat().st_size if journal.exists() else 0
            for _ in range(25):
                await spend(ledger, 1, tenants(1_000_000))
            if journal.stat().st_size == before:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the journal never stopped growing")
        assert (tmp_path / "l.db").stat().st_size > 50_000


async def test_a_commit_that_waits_for_the_disk_is_made_by_the_thread(tmp_path: Path):
    async with books(sqlite_url(tmp_path)) as book:
        assert Committer(book.url, durable=True)._quick is None
        committer = Committer(book.url, durable=True)
        read = Kind("read", 0, lambda link, payloads: [link.rows("PRAGMA synchronous")[0][0] for _ in payloads])
        assert await committer.submit(read, None) == 2  # FULL
        await committer.close()


async def test_a_closed_committer_takes_nothing_and_loses_nothing(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await ledger.keep_once()
        holds = [await ledger.reserve(charge(1)) for _ in range(700)]  # more than one batch
        await ledger.close()
        assert book.one("SELECT COUNT(*) FROM ledger") == 700
        assert all(hold._recorded.done() for hold in holds)
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(charge(1))


async def test_d03_a_disk_that_is_full_refuses_calls_and_is_tried_again(tmp_path: Path):
    async with books(sqlite_url(tmp_path)) as book:
        ledger = book.open()
        await spend(ledger, 1, tenants(100))
        committer = ledger._committer
        for link in (committer._link, committer._quick):
            assert link is not None
            with link.transaction():
                (pages,) = link.rows("PRAGMA page_count")[0]
            link._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(LedgerUnavailable):
            for _ in range(500):
                await (await ledger.reserve(charge(1))).recorded()
        before = book.one("SELECT COUNT(*) FROM ledger")
        await spend(ledger, 1)  # after a failure it connects anew, as if there were room again
        assert book.one("SELECT COUNT(*) FROM ledger") == before + 1
