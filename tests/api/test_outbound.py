"""What the API sends for on others' behalf: documents by URL, and the ends of jobs to a URL of the caller's."""

import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from rich.console import Console

from app.commands.ingest import Shown, ingest_found
from app.config.schema import ReachConfig
from app.jobs.urls import Fetcher
from app.outbound.client import Outbound
from app.outbound.documents import LIMITS
from app.outbound.errors import OutboundRefused
from app.outbound.lookup import REFUSAL
from graphs.errors import UpstreamError
from tests.api.served import CONFIG, OWNER_KEY, Served, served
from tests.api.test_canary import CANARY, TOLD, left_in
from tests.api.test_jobs import ended
from tests.outbound.recipe import NEW
from tests.outbound.servers import LOCAL, answer, redirect, serving
from tests.outbound.sites import Site, site

ALLOWED = """
outbound:
  documents: {networks: [127.0.0.1/32]}
  webhooks: {networks: [127.0.0.1/32]}
  webhook_secret_env: HOOK_SECRET
"""
HTML = answer(b"<html><title>Otters</title><body><p>An otter eats fish.</p></body></html>", "Content-Type: text/html")
ANSWERS = {
    "/otter": HTML,
    "/old": redirect("/heron.md"),
    "/heron.md": answer(b"# Herons\n\nA heron stands.\n", "Content-Type: text/plain"),
    "/untold": answer(b"<!doctype html><p>An eel swims.</p>", "Content-Type: application/octet-stream"),
    "/away": answer(b"", status="404 Not Found"),
    "/film": answer(b"x", "Content-Type: video/mp4"),
    "/huge": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 999999999\r\n\r\nx",
    "/hook": answer(b"", status="204 No Content"),
    f"/hook?token={CANARY}": answer(b"", status="204 No Content"),
    "/inside": redirect("http://169.254.169.254/latest/meta-data/"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOOK_SECRET", NEW)
        with served(tmp_path_factory.mktemp("urls"), CONFIG + ALLOWED, serving=True) as up:
            up.keys["owner"] = OWNER_KEY
            yield up


@pytest.fixture(scope="module")
def pages() -> Iterator[Site]:
    with site(ANSWERS.__getitem__) as up:
        yield up


def taken(owner: httpx.Client, urls: list[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    sent = owner.post("/api/ai/documents", json={"collection": "river", "urls": urls})
    assert (sent.status_code, sent.json()["kind"]) == (202, "ingest")
    job = ended(owner, sent.json()["jobId"])
    return job, owner.get(f"/api/ai/jobs/{job['jobId']}/items").json()["items"]


def test_documents_are_fetched_by_a_job_and_named_by_where_they_were_found(owner: httpx.Client, pages: Site) -> None:
    named = {"url": pages.url("/untold"), "id": "eels", "title": "Eels", "metadata": {"lang": "en"}}
    job, items = taken(owner, [pages.url("/otter"), pages.url("/old"), named])
    assert (job["status"], job["result"]) == ("succeeded", {"collection": "river", "documents": 3, "failed": []})
    assert [item["result"]["documentId"] for item in items] == [pages.url("/otter"), pages.url("/heron.md"), "eels"]
    held = owner.get("/api/ai/documents?collection=river").json()["items"]
    told = {each["documentId"]: (each["title"], each["mediaType"]) for each in held}
    assert told[pages.url("/otter")] == ("Otters", "text/html")
    assert told[pages.url("/heron.md")] == ("Herons", "text/markdown")
    assert told["eels"] == ("Eels", "text/html")
    found = owner.post("/api/ai/search", json={"query": "heron", "collection": "river"}).json()["results"]
    assert found[0]["documentId"] == pages.url("/heron.md")


def test_s01_a_url_that_fails_fails_alone_and_says_why(owner: httpx.Client, pages: Site) -> None:
    paths = ["/away", "/film", "/huge", "/inside", "/otter"]
    urls = [*map(pages.url, paths), "http://10.0.0.1/", "ftp://a.test/", "https://ann:pass@a.test/"]
    job, items = taken(owner, urls)
    assert (job["status"], job["result"]["documents"]) == ("succeeded", 1)
    codes = [item["error"] and item["error"]["code"] for item in items]
    refused = ["outbound_refused", "url_invalid", "url_invalid"]
    assert codes == ["not_found", "outbound_content_type", "outbound_too_large", "outbound_refused", None, *refused]
    assert items[5]["error"]["message"] == REFUSAL
    assert {each["documentId"] for each in job["result"]["failed"]} == {item["name"] for item in items if item["error"]}


def test_whoever_asks_is_told_of_the_end_of_each_kind_of_job(owner: httpx.Client, pages: Site) -> None:
    hook, text = pages.url("/hook"), [{"id": "a", "text": "An otter."}]
    line, jsonl = '{"message": "say Hi."}', {"Content-Type": "application/jsonl"}
    told = {"collection": "told", "callbackUrl": hook}
    sent = [
        owner.post("/api/ai/jobs", json={"kind": "runs", "runs": [{"message": "say Hi."}], "callbackUrl": hook}),
        owner.post(f"/api/ai/jobs?callbackUrl={hook}", content=line, headers=jsonl),
        owner.post("/api/ai/documents", json=told | {"documents": text}),
        owner.post("/api/ai/documents", json=told | {"urls": [pages.url("/otter")]}),
        owner.post("/api/ai/documents", data=told, files={"file": ("eel.md", b"An eel.", "text/markdown")}),
    ]
    assert [(each.status_code, each.json()["callback"]) for each in sent] == [(202, "waiting")] * 5
    deadline = time.monotonic() + 100
    for each in sent:
        while owner.get(f"/api/ai/jobs/{each.json()['jobId']}").json()["callback"] != "delivered":
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert {job["kind"] for job in owner.get("/api/ai/jobs").json()["items"]} == {"runs", "ingest"}
    deliveries = owner.get("/api/ai/jobs?kind=webhook").json()["items"]
    assert {each["result"]["jobId"] for each in deliveries} >= {each.json()["jobId"] for each in sent}


@pytest.mark.parametrize(
    ("url", "status", "field"),
    [("http://10.0.0.1/hook", 403, "callbackUrl"), ("ftp://a.test/", 422, "callbackUrl"), ("", 422, "callbackUrl")],
)
def test_s01_a_callback_that_could_not_be_is_refused_at_once(
    owner: httpx.Client, url: str, status: int, field: str
) -> None:
    batch = {"kind": "runs", "runs": [{"message": "say Hi."}], "callbackUrl": url}
    refused = owner.post("/api/ai/jobs", json=batch)
    assert (refused.status_code, refused.json()["field"]) == (status, field)


@pytest.mark.parametrize(
    ("urls", "field"),
    [
        ([], "urls"),
        (["https://a.test/"] * 101, "urls"),
        ([{"url": ""}], "urls.0.url"),
        (["https://a.test/\x07"], "urls.0.url"),
        ([{"url": "https://a.test/", "text": "x"}], "urls.0.text"),
        ([7], "urls.0"),
    ],
)
def test_urls_of_the_wrong_shape_are_named(owner: httpx.Client, urls: Any, field: str) -> None:
    refused = owner.post("/api/ai/documents", json={"collection": "river", "urls": urls})
    assert (refused.status_code, refused.json()["field"]) == (422, field)


def test_a_batch_has_texts_or_urls_and_the_handbook_takes_neither(owner: httpx.Client) -> None:
    both = {"collection": "river", "urls": ["https://a.test/"], "documents": [{"id": "a", "text": "a"}]}
    assert owner.post("/api/ai/documents", json=both).json()["field"] == "documents"
    closed = owner.post("/api/ai/documents", json={"collection": "handbook", "urls": ["https://a.test/"]})
    assert (closed.status_code, closed.json()["field"]) == (422, "collection")


def test_p01_secrets_told_to_jobs_lie_sealed_in_their_rows_and_nowhere_else(
    server: Served, owner: httpx.Client, pages: Site
) -> None:
    hook = pages.url(f"/hook?token={CANARY}")
    lines = b"\n".join(orjson.dumps({"message": f"{verb} {TOLD}"}) for verb in ("say", "fail"))
    jsonl = {"Content-Type": "application/jsonl"}
    sent = [
        owner.post("/api/ai/jobs", params={"callbackUrl": hook}, content=lines, headers=jsonl),
        owner.post(
            "/api/ai/documents",
            data={"collection": "vault", "title": TOLD, "callbackUrl": hook},
            files={"file": ("broken.pdf", f"%PDF-1.7 {TOLD}".encode(), "application/pdf")},
        ),
    ]
    assert [answer.status_code for answer in sent] == [202, 202]
    done = [ended(owner, answer.json()["jobId"]) for answer in sent]
    for job in done:
        while owner.get(f"/api/ai/jobs/{job['jobId']}").json()["callback"] == "waiting":
            time.sleep(0.05)
    items = owner.get(f"/api/ai/jobs/{done[0]['jobId']}/items").json()["items"]
    assert [item["status"] for item in items] == ["succeeded", "failed"]
    assert CANARY in items[0]["card"]["answer"], "what was looked for is there, for whom it is"
    again = owner.post(f"/api/ai/jobs/{done[0]['jobId']}/retry")
    assert again.status_code == 202
    ended(owner, again.json()["jobId"])
    assert left_in(server.bench.settings.home) == {}


def test_the_terminal_takes_urls_beside_files(server: Served, owner: httpx.Client, pages: Site, tmp_path: Path) -> None:
    (tmp_path / "pike.md").write_text("# Pike\n\nA pike waits.\n")
    urls = [pages.url("/otter"), pages.url("/away")]
    ingest = ingest_found(
        server.bench, "default", "pond", {"pike.md": tmp_path / "pike.md"}, urls, Console(file=StringIO())
    )
    shown: Shown = server.call(ingest)
    assert list(shown.failed) == [pages.url("/away")]
    held = owner.get("/api/ai/documents?collection=pond").json()["items"]
    assert {each["documentId"] for each in held} == {"pike.md", pages.url("/otter")}


async def test_s01_by_default_no_document_is_fetched_from_a_private_address() -> None:
    async with serving(lambda _: HTML) as inside:
        with pytest.raises(OutboundRefused, match=REFUSAL):
            await Fetcher.of(ReachConfig(), 1 << 20).source(inside.url())
    assert inside.requests == []


async def test_a_server_that_is_away_for_a_moment_is_asked_again_and_one_that_refuses_is_not() -> None:
    answers = [answer(b"", status="503 Busy"), HTML, answer(b"", status="403 Forbidden")]
    async with serving(lambda _: answers.pop(0)) as server:
        fetcher = Fetcher(Outbound(LOCAL, LIMITS), pauses_s=(0.0,))
        assert (await fetcher.source(server.url("/page.php"))).filename == ""
        with pytest.raises(UpstreamError):
            await fetcher.source(server.url())
    assert len(server.requests) == 3
