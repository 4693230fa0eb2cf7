"""What ingest costs beside the bare embedder, and what it does to searches that go on meanwhile.

    python benchmarks/ingest.py [--rounds 3] [--documents 400]       ingest against the embedder, on the same texts
    python benchmarks/ingest.py --searches [--documents 20000]       searches of a collection while another is filled

The texts are the documents of the sets in `$PILOTHOUSE_DATASETS/retrieval`; more than there are come again with their
number in front, so that each is embedded anew. The first is measured in turns in this process: `embed_now` over the
chunks' texts, then the batch through parser, chunker, embedder, index and records. The second asks a served instance
over HTTP from this process, one caller with a pause between, before and while one job takes the documents in.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import gateway

from app.services.ingest.chunk import chunk
from app.services.ingest.ingest import Source
from app.services.ingest.parse import parse
from app.settings import Settings, quiet_libraries
from app.workbench import open_workbench
from benchmarks.beir import sets_folder

quiet_libraries()
OF_JOB = 1_000  # documents in one request
PAUSE_S = 0.1  # between two searches
ENDS = {"succeeded", "failed", "cancelled"}
QUESTIONS = ("why do cells divide", "how are documents indexed", "which treatment lowers blood pressure")


def texts() -> Iterator[str]:
    """Without end; none twice."""
    found = []
    for name in ("med", "cisi", "scifact", "ops", "xquad_en"):
        for line in (sets_folder() / name / "corpus.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["text"].strip():
                found.append(f"{row.get('title', '')}\n\n{row['text']}")
    np.random.default_rng(7).shuffle(found)
    for turn in itertools.count():
        yield from (f"{turn}. {text}" for text in found)


async def against_the_embedder(rounds: int, documents: int) -> None:
    """Chunks a second of both, by round, and their ratio."""
    source, ratios = texts(), list[float]()
    with tempfile.TemporaryDirectory() as home:
        async with open_workbench(Settings.offline(Path(home))) as bench:
            await bench.ready.wait()
            for turn in range(rounds + 1):  # the first one warms up
                taken = list(itertools.islice(source, documents))
                pieces = [piece for text in taken for piece in await _embedded(text)]
                began = time.perf_counter()
                await asyncio.to_thread(bench.embedder.embed_now, pieces)
                bare = len(pieces) / (time.perf_counter() - began)
                began = time.perf_counter()
                sources = [Source(f"{turn}-{place}", text, title="Abstract") for place, text in enumerate(taken)]
                outcomes = await bench.ingest.add_batch("bench", "texts", sources)
                took = time.perf_counter() - began
                chunks = sum(outcome.record.chunks for outcome in outcomes if outcome.record)
                assert chunks == len(pieces), (chunks, len(pieces))
                if turn:
                    ratios.append(chunks / took / bare)
                    print(
                        f"{chunks} chunks: embedder {bare:.0f} a second, ingest {chunks / took:.0f}: {ratios[-1]:.3f}"
                    )
    print(f"ingest / embedder: median {np.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}], n = {rounds}")


async def _embedded(text: str) -> list[str]:
    """What is embedded of a document, as ingest does it."""
    parsed = await parse(text)
    return ["\n".join(part for part in ("Abstract", piece.heading, piece.text) if part) for piece in chunk(parsed)]


async def searches_meanwhile(documents: int, asked: int, idle_s: float) -> None:
    """Latency of searches in one collection, of `asked` documents, with nothing else to do, and while another takes
    documents in."""
    source = texts()
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        gateway.open_pilothouse(stack, Path(home), limits=True, core="0,1")
        headers = {"authorization": f"Bearer {gateway.OWNER_KEY}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{gateway.PILOTHOUSE}", headers=headers, timeout=300
        ) as client:
            await _done(client, [await _take_in(client, "asked", itertools.islice(source, asked), "a")])
            until = time.monotonic() + idle_s
            idle = await _searched(client, lambda: time.monotonic() > until)
            began, firsts = time.monotonic(), range(0, documents, OF_JOB)
            jobs = [
                await _take_in(client, "bulk", itertools.islice(source, min(OF_JOB, documents - first)), f"b{first}")
                for first in firsts
            ]
            ending = asyncio.create_task(_done(client, jobs))
            busy = await _searched(client, ending.done)
            await ending
            print(f"{documents} documents in {time.monotonic() - began:.0f} s")
    for name, took in (("idle", idle), ("under ingest", busy)):
        p50, p95, p99 = np.percentile(took, (50, 95, 99))
        print(f"{name}: p50 {p50:.1f} ms, p95 {p95:.1f}, p99 {p99:.1f}, n = {len(took)}")
    print(f"p95 under ingest / idle: {np.percentile(busy, 95) / np.percentile(idle, 95):.2f}")


async def _take_in(client: httpx.AsyncClient, collection: str, taken: Iterator[str], prefix: str) -> str:
    """The job's id."""
    held = [{"id": f"{prefix}-{place}", "text": text} for place, text in enumerate(taken)]
    answer = await client.post("/api/ai/documents?async=true", json={"collection": collection, "documents": held})
    answer.raise_for_status()
    return str(answer.json()["jobId"])


async def _done(client: httpx.AsyncClient, jobs: Sequence[str]) -> None:
    for job in jobs:
        while (state := (await client.get(f"/api/ai/jobs/{job}")).raise_for_status().json())["status"] not in ENDS:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        assert state["status"] == "succeeded", state


async def _searched(client: httpx.AsyncClient, is_over: Callable[[], bool]) -> list[float]:
    """Milliseconds of each, one after another; no question is asked twice, so each is embedded."""
    took, number = list[float](), itertools.count()
    while not is_over():
        body = {"query": f"{QUESTIONS[len(took) % len(QUESTIONS)]} {next(number)}", "collection": "asked"}
        began = time.perf_counter()
        answer = await client.post("/api/ai/search", json=body)
        took.append((time.perf_counter() - began) * 1e3)
        answer.raise_for_status()
        await asyncio.sleep(PAUSE_S)
    return took


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--searches", action="store_true")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--documents", type=int)
    arguments.add_argument("--asked", type=int, default=1_000, help="documents in the collection that is searched")
    arguments.add_argument("--idle-s", type=float, default=30.0)
    given = arguments.parse_args()
    if given.searches:
        asyncio.run(searches_meanwhile(given.documents or 20_000, given.asked, given.idle_s))
    else:
        asyncio.run(against_the_embedder(given.rounds, given.documents or 400))


if __name__ == "__main__":
    main()
