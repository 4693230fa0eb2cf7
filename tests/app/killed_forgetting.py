"""Run as a process that forgets, by erasure or by retention, and is killed after a step of it.

For each of `STEPS` it forks a child that is killed there, over a home of its own that is lived in, and then another one
that is not. It prints a line of JSON for each: the step, and how the two ended.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.config.retention import RetentionConfig
from app.services.ingest.ingest import Ingest
from app.services.store.erasure import Erasures, Subject
from app.services.store.expiry import Expiries
from app.settings import quiet_libraries
from tests.app import test_erasure, test_retention
from tests.services.store.test_sealed import CANARY, NOW

STEPS: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "erasure": {
        "a document is gone": (Ingest, "remove"),
        "rows are gone": (Erasures, "erase"),
    },
    "retention": {"rows are gone": (Expiries, "drop")},
}
DAYS = RetentionConfig(conversations_days=30, feedback_days=30, tickets_days=30, documents_days=30)


def url(home: Path) -> str:
    return f"sqlite+aiosqlite:///{home / 'pilothouse.db'}"


async def live(home: Path) -> None:
    async with test_erasure.house(url(home), home) as at:
        await test_erasure.lived_in(at)
        await test_erasure.uploaded(at)


async def live_without_jobs(home: Path) -> None:
    async with test_retention.archive(url(home), home, DAYS) as at:
        await test_retention.lived_in(at)
        for name in ("one", "two"):
            await at.uploading.ingest.add("acme", "notes", name, f"The {CANARY} sings in {name}.")


async def erase(home: Path) -> None:
    async with test_erasure.house(url(home), home) as at:
        await at.erasure.erase(Subject("acme", "ada"), test_erasure.BY, documents=True)
        await at.erasure.erase(Subject("globex", "ada"), test_erasure.BY)


async def sweep(home: Path) -> None:
    async with test_retention.archive(url(home), home, DAYS) as at:
        at.clock.now = NOW + timedelta(days=10_000)
        await at.retention.sweep(test_retention.nothing)


def dying(owner: Any, name: str) -> None:
    real = getattr(owner, name)

    async def killed(*given: Any, **named: Any) -> None:
        await real(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killed)


def forked(work: Callable[[Path], Coroutine[Any, Any, object]], home: Path) -> int:
    """How the child ended."""
    if (child := os.fork()) == 0:
        asyncio.run(work(home))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(home: Path, kind: str) -> None:
    begin, work = {"erasure": (live, erase), "retention": (live_without_jobs, sweep)}[kind]
    lived = home / "lived"
    lived.mkdir()
    assert forked(begin, lived) == 0
    for name, step in STEPS[kind].items():
        place = home / name
        shutil.copytree(lived, place)

        async def killed(place: Path, step: tuple[Any, str] = step) -> None:
            dying(*step)
            await work(place)

        first, then = forked(killed, place), forked(work, place)
        print(json.dumps({"step": name, "first": first, "then": then}), flush=True)


if __name__ == "__main__":
    quiet_libraries()
    main(Path(sys.argv[1]), sys.argv[2])
