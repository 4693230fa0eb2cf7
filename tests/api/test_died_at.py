"""A process that dies at a request with an idempotency key: whoever asks again has the work done once."""

import asyncio
import signal
import sys
from datetime import timedelta

import pytest

from app.api.once import InProgress
from app.services.store.database import utc_now
from app.services.store.records import RunFilter
from app.services.store.repeats import HELD
from app.services.store.store import Store
from tests.api.died_at import POINTS, run, ticket


async def killed(url: str, what: str, point: str) -> None:
    """A process of its own does it and is dead by now."""
    died = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.api.died_at", url, what, point)
    assert await died.wait() == -signal.SIGKILL


async def test_p09_a_run_whose_process_died_is_attached_to_or_begun_once_wherever_it_died(store_url: str) -> None:
    await asyncio.gather(*(killed(store_url, "run", point) for point in POINTS))
    store = await Store.open(store_url, clock=lambda: utc_now() + HELD + timedelta(seconds=1))
    begun: list[str] = []
    found = [await run(store, f"run {point}", begun) for point in POINTS]
    again = [await run(store, f"run {point}", begun) for point in POINTS]
    assert [repeated for _, repeated in found] == [False, True, True]
    assert [run_id for run_id, _ in again] == [run_id for run_id, _ in found]
    assert begun == [found[0][0]], "the one that had not begun, and under the id that it was to have"
    assert len((await store.runs.list("acme", None, RunFilter(), 10)).items) == 3
    await store.close()


async def test_p09_an_effect_whose_process_died_is_told_or_brought_about_once_wherever_it_died(store_url: str) -> None:
    await asyncio.gather(*(killed(store_url, "ticket", point) for point in POINTS))
    store = await Store.open(store_url)
    with pytest.raises(InProgress):
        await ticket(store, f"ticket {POINTS[1]}", [])  # for all that is known it is still being done
    await store.close()
    store = await Store.open(store_url, clock=lambda: utc_now() + HELD + timedelta(seconds=1))
    written: list[str] = []
    found = [await ticket(store, f"ticket {point}", written) for point in POINTS]
    again = [await ticket(store, f"ticket {point}", written) for point in POINTS]
    assert [answer.body for answer in again] == [answer.body for answer in found]
    assert [answer.headers.get("idempotent-replayed") for answer in found] == [None, None, "true"]
    assert len(written) == 2
    assert len((await store.tickets.list("acme", 10)).items) == 3
    await store.close()
