"""Two API processes and two workers, each with a home of its own, on PostgreSQL, Redis and an S3-compatible store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from app.buckets import Bucket
from tests.buckets import contents
from tests.flow.fleet import START_S, Api, Fleet, fleet
from tests.flow.lab import Lab

FACT = "The Kestrel is under warranty for 31 months."
SECRET = "zebrafish77"
ENDED = {"succeeded", "failed", "cancelled"}


@dataclass
class Whole:
    fleet: Fleet
    bucket: Bucket

    @property
    def a(self) -> Api:
        return self.fleet.a

    @property
    def b(self) -> Api:
        return self.fleet.b


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(
    tmp_path_factory: pytest.TempPathFactory,
    new_postgres_url: Callable[[], str],
    new_bucket: Callable[[], Bucket],
) -> AsyncIterator[Whole]:
    bucket = new_bucket()
    shared = {
        "jobs_in_process": "false",
        "storage_url": str(bucket),
        "storage_endpoint_url": bucket.endpoint_url or "",
    }
    root = tmp_path_factory.mktemp("fleet")
    async with fleet(root, Lab((FACT,)), new_postgres_url(), "one", "two", **shared) as up:
        await up.admit("acme", "ann", "chat", "documents", "runs")
        await up.admit("rated", "rae", "chat")
        yield Whole(up, bucket)


async def ended(api: Api, job: httpx.Response) -> dict[str, Any]:
    assert job.status_code == 202, job.text
    async with api.client() as client, asyncio.timeout(START_S):
        while (state := (await client.get(f"/api/ai/jobs/{job.json()['jobId']}")).json())["status"] not in ENDED:
            await asyncio.sleep(0.1)
    return dict(state)


async def take_in(asked: Api, watched: Api, **texts: str) -> dict[str, Any]:
    documents = [{"id": name, "title": name, "text": text} for name, text in texts.items()]
    async with asked.client() as client:
        body = {"collection": "manuals", "documents": documents}
        return await ended(watched, await client.post("/api/ai/documents?async=true", json=body))


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]  # four processes are started


async def test_documents_given_to_one_api_are_taken_in_by_a_worker_and_answer_at_the_other(whole: Whole) -> None:
    job = await take_in(whole.a, whole.b, kestrel=f"Warranties.\n\n{FACT}", osprey="The Osprey is sold as it is.")
    assert (job["status"], job["result"]["documents"]) == ("succeeded", 2), job
    async with whole.b.client() as client:
        question = "How long is the Kestrel under warranty?"
        asked = {"message": question, "mode": "rag", "collection": "manuals"}
        card = (await client.post("/api/ai/chat", json=asked)).json()
    assert (card["status"], card["answered"]) == ("completed", True), card
    assert FACT.removesuffix(".") in card["answer"]
    assert {cited["documentId"] for cited in card["citations"]} == {"kestrel"}


async def test_p05_a_document_deleted_at_one_api_is_gone_at_the_other_at_once_and_from_the_bucket(whole: Whole) -> None:
    await take_in(whole.a, whole.a, secret=f"The password is {SECRET}.")
    query = {"query": f"password {SECRET}", "collection": "manuals"}
    async with whole.a.client() as at_a, whole.b.client() as at_b:
        found = (await at_b.post("/api/ai/search", json=query)).json()["results"]
        assert found[0]["documentId"] == "secret"
        path = "/api/ai/documents/secret?collection=manuals"
        assert (await at_a.delete(path)).status_code == 204
        assert (await at_b.get(path)).status_code == 404
        found = (await at_b.post("/api/ai/search", json=query)).json()["results"]
        assert "secret" not in {passage["documentId"] for passage in found}
        tidied = await at_b.post("/api/ai/jobs", json={"kind": "optimize", "collection": "manuals"})
        assert (await ended(whole.a, tidied))["status"] == "succeeded"
    held = b"".join((await contents(whole.bucket)).values())
    assert SECRET.encode() not in held
    assert FACT.encode() in held


async def test_k01_a_run_that_one_api_streams_is_read_on_at_the_other_whole_and_once(whole: Whole) -> None:
    read = []
    async with whole.a.asked("hold first") as run_id, aclosing(whole.a.events(run_id)) as events:
        async for found in events:
            read.append(found)
            if found.type == "message.delta":
                break
    async with asyncio.timeout(40), aclosing(whole.b.events(run_id, after=read[-1].number)) as events:
        whole.fleet.lab.gate("first").set()
        read += [found async for found in events]
    assert [found.number for found in read] == list(range(1, len(read) + 1))
    assert "".join(found.data["text"] for found in read if found.type == "message.delta") == "One. Two."
    assert read[-1].type == "run.completed"


async def test_a_stop_asked_for_at_one_api_ends_the_run_and_its_model_call_at_the_other(whole: Whole) -> None:
    whole.fleet.fake.gone.clear()
    async with whole.a.asked("hold stopped") as run_id, whole.b.client() as client:
        assert (await client.post(f"/api/ai/runs/{run_id}/cancel")).json()["status"] == "cancelled"
        await asyncio.wait_for(whole.fleet.fake.gone.wait(), 40)
    assert (await whole.a.card(run_id))["status"] == "cancelled"


async def test_r09_a_tenants_rate_holds_over_both_apis_together(whole: Whole) -> None:
    whole.fleet.lab.gate("rated").set()
    async with whole.a.client("rae") as at_a, whole.b.client("rae") as at_b:
        body = {"message": "hold rated"}
        tries = [client.post("/api/ai/chat", json=body) for client in (at_a, at_b) for _ in range(3)]
        codes = [answer.status_code for answer in await asyncio.gather(*tries)]
    assert sorted(codes) == [200] * 4 + [429] * 2


# Last: from here on there is one worker.
async def test_k03_what_a_killed_worker_had_in_hand_is_finished_by_the_other_once(whole: Whole) -> None:
    lab, fake = whole.fleet.lab, whole.fleet.fake
    lab.gate("done").set()
    runs = [{"customId": name, "message": f"hold {name}"} for name in ("done", "lost")]
    async with whole.a.client() as at_a, whole.b.client() as at_b:
        job = await at_a.post("/api/ai/jobs", json={"kind": "runs", "runs": runs})
        items = f"/api/ai/jobs/{job.json()['jobId']}/items"
        async with asyncio.timeout(40):
            while not (by := callers(fake.requests, fake.headers, "lost")) or await open_of(at_b, items) > 1:
                await asyncio.sleep(0.1)
        whole.fleet.workers.pop(by[0]).kill()
        lab.gate("lost").set()
        assert (await ended(whole.b, job))["result"] == {"succeeded": 2, "failed": 0}
        cards = [item["card"] for item in (await at_b.get(items)).json()["items"]]
    assert [card["answer"] for card in cards] == ["One. Two."] * 2
    (survivor,) = whole.fleet.workers
    # What was answered is not asked again; what the dead one had asked for is asked for once more.
    assert callers(fake.requests, fake.headers, "done") == by
    assert callers(fake.requests, fake.headers, "lost") == [*by, survivor]


def callers(requests: list[dict[str, Any]], headers: list[dict[str, str]], name: str) -> list[str]:
    """The keys with which the model was asked to `hold NAME`, in order."""
    both = zip(requests, headers, strict=True)
    asked = f"hold {name}".encode()
    return [told["Authorization"].removeprefix("Bearer ") for body, told in both if asked in orjson.dumps(body)]


async def open_of(client: httpx.AsyncClient, items: str) -> int:
    found = (await client.get(items)).json()["items"]
    return sum(item["status"] not in ENDED for item in found)
