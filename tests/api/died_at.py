"""Run as a process that dies, by a signal that nothing catches, at one point of a request with an idempotency key."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from starlette.responses import Response

from app.api.once import begin_once, once
from app.records import Principal
from app.services.store.repeats import Repeats
from app.services.store.store import Store

Point = Literal["before the effect", "before it is written down", "before the answer is sent"]
POINTS = get_args(Point)
ANN = Principal("acme", "ann", frozenset({"chat"}), "k")
ASKED = ["chat", "hello"]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def run(store: Store, key: str, begun: list[str]) -> tuple[str, bool]:
    """Begin a run, at most once a key."""

    async def begin(run_id: str | None) -> str:
        assert run_id is not None
        await store.runs.start(run_id, "acme", "ann", None, "chat", "hello", "api", "k", datetime.now(UTC))
        begun.append(run_id)
        return run_id

    return await begin_once(store, ANN, key, ASKED, begin)


async def ticket(store: Store, key: str, written: list[str]) -> Response:
    """Write a ticket, which bears repetition, at most once a key."""

    async def write(ref: str | None) -> Response:
        assert ref is not None
        found = await store.tickets.create("acme", "ann", "run", ref, "Printer", "Broken.")
        written.append(found.ticket_id)
        return Response(f'{{"ticketId": "{found.ticket_id}"}}', 201, media_type="application/json")

    return await once(store, ANN, key, ASKED, write)


def arm(point: str) -> None:
    finish, claim = Repeats.finish, Repeats.claim

    async def claimed(repeats: Repeats, *told: Any) -> Any:
        found = await claim(repeats, *told)
        die()
        return found

    async def finished(repeats: Repeats, *told: Any) -> None:
        if point == POINTS[2]:
            await finish(repeats, *told)
        die()

    if point == POINTS[0]:
        Repeats.claim = claimed  # type: ignore[method-assign]
    else:
        Repeats.finish = finished  # type: ignore[method-assign]


async def main(url: str, what: str, point: str) -> None:
    store = await Store.open(url)
    arm(point)
    await (run if what == "run" else ticket)(store, f"{what} {point}", [])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
