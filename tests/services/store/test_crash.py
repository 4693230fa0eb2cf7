"""kill -9 in the middle of writing: the store stays readable and no run is half there."""

import asyncio
import sys

from app.services.store.store import Store

WRITE_UNTIL_KILLED = """
import asyncio, sys
from datetime import UTC, datetime
from app.records import AnswerCard, RunEvent, SpanRecord
from app.services.store.store import Store

async def one(store, name):
    now = datetime.now(UTC)
    conversation_id = (await store.conversations.create("a", "u", "t")).conversation_id
    await store.runs.start(name, "a", "u", conversation_id, "chat", "hi", "api", "", now)
    card = AnswerCard(
        request_id=name, conversation_id=conversation_id, mode="chat", status="completed", answer="x" * 5_000,
        created_at=now,
    )
    events = [RunEvent(n, "message.delta", {"text": "x" * 200}) for n in range(1, 51)]
    spans = [SpanRecord(str(n), name, None, "s", "station", now, now, "ok") for n in range(10)]
    await store.runs.finish(name, "a", card, events, spans, [("user", "hi"), ("assistant", "x" * 5_000)])
    print(name, flush=True)

async def main():
    store = await Store.open(sys.argv[1])
    for n in range(1_000_000):
        await asyncio.gather(*(one(store, f"{sys.argv[2]}-{n}-{lane}") for lane in range(4)))

asyncio.run(main())
"""


async def test_a_killed_writer_leaves_whole_runs_or_none(store_url: str) -> None:
    reported: set[str] = set()
    for round_ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITE_UNTIL_KILLED, store_url, str(round_), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(20):
            reported.add((await process.stdout.readline()).decode().strip())
        process.kill()
        rest, _ = await process.communicate()
        reported |= {line for line in rest.decode().split("\n")[:-1] if line}

    store = await Store.open(store_url)
    orphans = {lease.run_id for lease in await store.leases.held()}
    ended = {run.run_id for run in await store.runs.export_batch(100_000)}
    assert reported <= ended
    assert not orphans & ended
    for run_id in ended | orphans:
        whole = run_id in ended
        run = await store.runs.get(run_id, "a", "u")
        assert run.conversation_id is not None
        turns = await store.conversations.messages(run.conversation_id, "a", "u")
        counts = (len(await store.runs.events(run_id, "a")), len(await store.runs.spans(run_id, "a")), len(turns))
        assert (counts, run.card is not None) == (((50, 10, 2), True) if whole else ((0, 0, 0), False))
    await store.close()
