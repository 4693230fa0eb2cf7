"""What a transaction of five inserts costs through SQLAlchemy and through SQLite's own driver, in CPU.

    python benchmarks/statements.py [--transactions 2000] [--rounds 5]

Median [min, max] of the rounds, in turns, in one file with WAL and synchronous=NORMAL.
"""

import argparse
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway import spread

INSERT = "INSERT INTO rows (a, b) VALUES (?, ?)"
VALUES = ("x" * 50, "y")
INSERTS = 5


def opened(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", pool_size=1)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE rows (id INTEGER PRIMARY KEY, a TEXT, b TEXT)")
    return engine


def through_sqlalchemy(engine: Engine) -> None:
    with engine.begin() as connection:
        for _ in range(INSERTS):
            connection.exec_driver_sql(INSERT, VALUES)


def through_the_driver(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(INSERTS):
        connection.execute(INSERT, VALUES)
    connection.execute("COMMIT")


def cpu_us(work: Callable[[], None], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - began) / count * 1e6


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--transactions", type=int, default=2_000)
    arguments.add_argument("--rounds", type=int, default=5)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = opened(Path(folder) / "rows.db")
        raw = sqlite3.connect(Path(folder) / "rows.db", isolation_level=None)
        raw.execute("PRAGMA synchronous=NORMAL")
        found: dict[str, list[float]] = {"SQLAlchemy": [], "the driver": []}
        for _ in range(chosen.rounds):
            found["SQLAlchemy"].append(cpu_us(lambda: through_sqlalchemy(engine), chosen.transactions))
            found["the driver"].append(cpu_us(lambda: through_the_driver(raw), chosen.transactions))
        raw.close()
        engine.dispose()
    for name, costs in found.items():
        print(f"{name}: {spread(costs, 0)} us of CPU a transaction of {INSERTS} inserts")


if __name__ == "__main__":
    main()
