"""Jobs at their own door and at that of documents, with a server that performs them."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.conftest import PEOPLE
from tests.api.served import OWNER_KEY, Served, served

JSONL = {"Content-Type": "application/jsonl"}
NEVER = "0" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("jobs"), serving=True) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name, (tenant, scopes) in PEOPLE.items():
                made = owner.post(
                    "/api/ai/keys", json={"tenantId": tenant, "userId": name, "scopes": scopes, "name": name}
                )
                up.keys[name] = made.json()["key"]
        yield up


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    return until(client, job_id, "succeeded", "failed", "cancelled")


def until(client: httpx.Client, job_id: str, *statuses: str) -> dict[str, Any]:
    deadline = time.monotonic() + 100
    while (job := client.get(f"/api/ai/jobs/{job_id}").json())["status"] not in statuses:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return dict(job)


def test_a_batch_of_runs_is_answered_line_by_line_under_the_callers_ledger(ann: httpx.Client) -> None:
    runs = [
        {"customId": "first", "message": "say Hi."},
        {"customId": "second", "message": "please fail", "feature": "night"},
        {"customId": "third", "message": "say It is revoked.", "mode": "rag", "collection": "handbook"},
    ]
    sent = ann.post("/api/ai/jobs", json={"kind": "runs", "runs": runs})
    assert (sent.status_code, sent.json()["status"]) == (202, "queued")
    job = ended(ann, sent.json()["jobId"])
    assert (job["status"], job["result"]) == ("succeeded", {"succeeded": 2, "failed": 1})
    assert job["progress"] == {"done": 3, "total": 3, "stage": ""}
    first, second, third = ann.get(f"/api/ai/jobs/{job['jobId']}/items").json()["items"]
    assert (first["name"], first["status"], first["card"]["answer"]) == ("first", "succeeded", "Hi.")
    assert (second["name"], second["status"], second["error"]["code"]) == ("second", "failed", "upstream_broke_off")
    assert (third["status"], third["card"]["mode"]) == ("succeeded", "rag")
    assert ann.get(f"/api/ai/runs/{first['requestId']}").json() == first["card"]
    used = {row["feature"] for row in ann.get("/api/ai/usage?groupBy=feature").json()["items"]}
    assert {"batch", "night"} <= used

    page = ann.get(f"/api/ai/jobs/{job['jobId']}/items?limit=2").json()
    assert [item["number"] for item in page["items"]] == [1, 2]
    rest = ann.get(f"/api/ai/jobs/{job['jobId']}/items?limit=2&cursor={page['nextCursor']}").json()
    assert ([item["number"] for item in rest["items"]], rest["nextCursor"]) == ([3], None)


def test_p06_p07_a_batch_of_lines_is_the_same_job_under_the_same_idempotency_key(ann: httpx.Client) -> None:
    body = '{"message": "say one", "customId": "a"}\n\n{"message": "say two"}\n'
    headers = JSONL | {"Idempotency-Key": "the-night-of-the-24th"}
    job_ids = {ann.post("/api/ai/jobs", content=body, headers=headers).json()["jobId"] for _ in range(3)}
    assert len(job_ids) == 1
    assert ended(ann, job_ids.pop())["result"] == {"succeeded": 2, "failed": 0}
    other = ann.post("/api/ai/jobs", content=body + body, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("line", "status", "field"),
    [
        ('{"message": ""}', 422, "runs.1.message"),
        ('{"message": "x", "mode": "sing"}', 422, "runs.1.mode"),
        ('{"message": "x", "tenantId": "umbrella"}', 422, "runs.1.tenantId"),
        ("not json", 422, "runs.1"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_begun(
    ann: httpx.Client, line: str, status: int, field: str
) -> None:
    before = ann.get("/api/ai/jobs").json()["items"]
    answer = ann.post("/api/ai/jobs", content='{"message": "say x"}\n\n' + line, headers=JSONL)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert answer.json()["detail"].startswith("line 3: ")  # as an editor counts it; the second is empty
    assert ann.get("/api/ai/jobs").json()["items"] == before


def test_a03_a05_jobs_of_another_tenant_are_not_there(ann: httpx.Client, eve: httpx.Client, al: httpx.Client) -> None:
    job_id = ann.post("/api/ai/jobs", json={"kind": "runs", "runs": [{"message": "say mine"}]}).json()["jobId"]
    for client in (eve, al):
        for job in (job_id, NEVER, "x", "%00", "a" * 400):
            answers = [
                client.get(f"/api/ai/jobs/{job}"),
                client.get(f"/api/ai/jobs/{job}/items"),
                client.get(f"/api/ai/jobs/{job}/events"),
                client.delete(f"/api/ai/jobs/{job}"),
            ]
            assert [answer.status_code for answer in answers] == [404] * 4
        assert job_id not in {job["jobId"] for job in client.get("/api/ai/jobs").json()["items"]}
    assert ended(ann, job_id)["status"] == "succeeded"


def test_a19_a_key_without_the_right_can_have_nothing_done_for_it(server: Served) -> None:
    with server.client("reader") as reader:
        answer = reader.post("/api/ai/jobs", json={"kind": "runs", "runs": [{"message": "say x"}]})
        assert answer.status_code == 403
        assert reader.get("/api/ai/jobs").status_code == 200


def test_a_job_that_is_called_off_stops_with_its_run(server: Served, ann: httpx.Client) -> None:
    runs = [{"message": "hold jobs"}, {"message": "say Done."}]
    job_id = ann.post("/api/ai/jobs", json={"kind": "runs", "runs": runs}).json()["jobId"]
    deadline = time.monotonic() + 100
    while "jobs" not in server.script.gates:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    held = ann.get(f"/api/ai/jobs/{job_id}/items").json()["items"][0]
    assert held["status"] == "begun"
    assert ann.delete(f"/api/ai/jobs/{job_id}").json()["status"] == "cancelled"
    assert ann.delete(f"/api/ai/jobs/{job_id}").status_code == 409
    while (run := ann.get(f"/api/ai/runs/{held['requestId']}").json()["status"]) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert run == "cancelled"
    assert ann.get(f"/api/ai/jobs/{job_id}").json()["status"] == "cancelled"


def test_documents_are_taken_in_later_where_that_is_asked_for_and_a_broken_one_fails_alone(ann: httpx.Client) -> None:
    documents = [
        {"id": "one", "title": "Otters", "text": "An otter eats fish."},
        {"id": "two", "text": "   "},
        {"id": "three", "text": "A heron eats fish as well."},
    ]
    sent = ann.post("/api/ai/documents?async=true", json={"collection": "river", "documents": documents})
    assert sent.status_code == 202
    assert sent.headers["Location"] == f"/api/ai/jobs/{sent.json()['jobId']}"
    job = ended(ann, sent.json()["jobId"])
    assert job["status"] == "succeeded"
    assert (job["result"]["collection"], job["result"]["documents"]) == ("river", 2)
    (failed,) = job["result"]["failed"]
    assert (failed["documentId"], failed["code"]) == ("two", "document_unreadable")
    found = ann.post("/api/ai/search", json={"query": "otter", "collection": "river"}).json()["results"]
    assert found[0]["documentId"] == "one"

    form = {"collection": "river"}
    files = {"file": ("eel.md", b"# Eel\n\nAn eel swims.\n", "text/markdown")}
    sent = ann.post("/api/ai/documents", data=form, files=files, headers={"Prefer": "respond-async, wait=1"})
    assert sent.status_code == 202
    assert ended(ann, sent.json()["jobId"])["result"]["documents"] == 1
    assert ann.get("/api/ai/documents/eel.md?collection=river").json()["title"] == "Eel"


def test_several_files_are_one_job_that_says_what_each_stage_took_and_tries_what_failed_again(
    ann: httpx.Client,
) -> None:
    form = {"collection": "reeds", "metadata": '{"lake": "long"}'}
    contents = {"a.md": b"# Reed\n\nA reed bends.", "b.txt": b"  ", "c.txt": b"Rushes stand."}
    files = [("file", (name, content, "text/plain")) for name, content in contents.items()]
    sent = ann.post("/api/ai/documents", data=form, files=files)
    assert sent.status_code == 202
    job = ended(ann, sent.json()["jobId"])
    assert [failed["documentId"] for failed in job["result"]["failed"]] == ["b.txt"]
    first, second, third = ann.get(f"/api/ai/jobs/{job['jobId']}/items").json()["items"]
    for item in (first, third):
        assert (item["result"]["documentId"], item["result"]["happened"]) == (item["name"], "added")
        assert list(item["result"]["tookMs"]) == ["parse", "chunk", "embed", "index"]
    assert second["status"] == "failed"
    assert ann.get("/api/ai/documents/c.txt?collection=reeds").json()["metadata"] == {"lake": "long"}
    for alone in ("id", "title"):
        refused = ann.post("/api/ai/documents", data=form | {alone: "x"}, files=files)
        assert (refused.status_code, refused.json()["field"]) == (422, alone)

    again = ann.post(f"/api/ai/jobs/{job['jobId']}/retry")
    assert (again.status_code, again.json()["progress"]["total"]) == (202, 1)
    assert [failed["documentId"] for failed in ended(ann, again.json()["jobId"])["result"]["failed"]] == ["b.txt"]
    assert ann.post(f"/api/ai/jobs/{NEVER}/retry").status_code == 404


def events(client: httpx.Client, job_id: str, after: int = 0) -> list[tuple[int, str, dict[str, Any]]]:
    """All of them, as id, type and data."""
    found, read = list[tuple[int, str, dict[str, Any]]](), dict[str, str]()
    headers = {"Last-Event-ID": str(after)} if after else {}
    with client.stream("GET", f"/api/ai/jobs/{job_id}/events", headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                read[name] = value
            elif "event" in read:
                found.append((int(read.get("id", 0)), read["event"], json.loads(read["data"])))
                read = {}
    return found


def test_each_document_of_a_job_is_an_event_with_its_stages_and_the_last_is_the_jobs_end(ann: httpx.Client) -> None:
    documents = [{"id": f"d{n}", "text": f"Tide table {n}." if n != 2 else " "} for n in range(1, 5)]
    sent = ann.post("/api/ai/documents?async=true", json={"collection": "tides", "documents": documents})
    found = events(ann, sent.json()["jobId"])
    ends = {data["name"]: (kind, data) for _, kind, data in found if kind in ("item.succeeded", "item.failed")}
    assert [ends[f"d{n}"][0] for n in range(1, 5)] == ["item.succeeded", "item.failed"] + 2 * ["item.succeeded"]
    assert list(ends["d1"][1]["result"]["tookMs"]) == ["parse", "chunk", "embed", "index"]
    assert ends["d2"][1]["error"]["code"] == "document_unreadable"
    numbers, last, job = [number for number, _, _ in found], found[-1][1], found[-1][2]
    assert (last, job["progress"], job["result"]["documents"]) == (
        "job.succeeded",
        {"done": 4, "total": 4, "stage": ""},
        3,
    )
    assert (numbers == sorted(numbers), numbers[-1]) == (True, 4)
    # No id says of an item that it was told before it and all of its look were sent.
    assert all(number < data["number"] for number, kind, data in found if kind.startswith("item."))
    missed = events(ann, job["jobId"], after=3)
    assert [(kind, data.get("name")) for _, kind, data in missed] == [("item.succeeded", "d4"), ("job.succeeded", None)]


def test_a11_a_key_that_is_revoked_hears_no_more_of_a_job(server: Served, ann: httpx.Client) -> None:
    with server.client("owner") as owner:
        asked = {"tenantId": "acme", "userId": "ann", "scopes": ["chat"], "name": "short"}
        key = owner.post("/api/ai/keys", json=asked).json()
        job_id = ann.post("/api/ai/jobs", json={"kind": "runs", "runs": [{"message": "hold ears"}]}).json()["jobId"]
        server.keys["short"] = key["key"]
        with server.client("short") as short, ThreadPoolExecutor() as pool:
            heard = pool.submit(events, short, job_id)
            until(ann, job_id, "running")
            assert owner.delete(f"/api/ai/keys/{key['keyId']}").status_code == 204
            ann.delete(f"/api/ai/jobs/{job_id}")
            last = heard.result(timeout=60)[-1]
    assert (last[1], last[2]["error"]["code"]) == ("stream.failed", "forbidden")


def test_t12_a_colleague_who_reads_all_jobs_reads_no_name_of_a_document_for_others(
    ann: httpx.Client, ada: httpx.Client, server: Served
) -> None:
    with server.client("owner") as owner:
        groups = {"groups": ["payroll"]}
        assert owner.patch(f"/api/ai/keys/{server.keys['ann'].split('_')[1]}", json=groups).status_code == 200
        documents = [
            {"id": "bonus", "text": "Nine barrels of rum.", "allowGroups": ["payroll"]},
            {"id": "dismissals", "text": " ", "allowGroups": ["payroll"]},  # fails, and so is in no index
            {"id": "blank", "text": " "},
            {"id": "menu", "text": "Fish."},
        ]
        sent = ann.post("/api/ai/documents?async=true", json={"collection": "galley", "documents": documents})
        job_id = ended(ann, sent.json()["jobId"])["jobId"]
        for reader, sees in ((ann, True), (ada, False)):
            told = [
                reader.get(f"/api/ai/jobs/{job_id}").text,
                reader.get("/api/ai/jobs?kind=ingest").text,
                reader.get(f"/api/ai/jobs/{job_id}/items").text,
                json.dumps(events(reader, job_id)),
            ]
            assert ["dismissals" in each for each in told] == [sees] * 4
            assert ["bonus" in each for each in told] == [False, False, sees, sees]
            assert ["blank" in each for each in told] == [True] * 4
            assert ["menu" in each for each in told] == [False, False, True, True]
        many = [{"id": f"sealed{n}", "text": "Rum.", "allowGroups": ["payroll"]} for n in range(400)]
        sent = ann.post("/api/ai/documents?async=true", json={"collection": "hold", "documents": many})
        called_off = sent.json()["jobId"]
        assert ann.delete(f"/api/ai/jobs/{called_off}").status_code == 200
        for reader, sees in ((ann, True), (ada, False)):
            told = reader.get(f"/api/ai/jobs/{called_off}/items?limit=200").text
            assert "sealed199" in told if sees else "sealed" not in told
        owner.patch(f"/api/ai/keys/{server.keys['ann'].split('_')[1]}", json={"groups": []})


def test_a_large_batch_is_a_job_and_a_small_one_is_not(ann: httpx.Client) -> None:
    def send(number: int) -> httpx.Response:
        documents = [{"id": f"d{n}", "text": f"Text {n}."} for n in range(number)]
        return ann.post("/api/ai/documents", json={"collection": "many", "documents": documents})

    assert send(2).status_code == 201
    large = send(101)
    assert large.status_code == 202
    assert ended(ann, large.json()["jobId"])["result"] == {"collection": "many", "documents": 101, "failed": []}
    closed = ann.post(
        "/api/ai/documents?async=true", json={"collection": "handbook", "documents": [{"id": "x", "text": "x"}]}
    )
    assert closed.status_code == 422


def test_jobs_are_listed_newest_first_by_kind_and_status(ann: httpx.Client, ada: httpx.Client) -> None:
    mine = ann.get("/api/ai/jobs?limit=2").json()
    assert len(mine["items"]) == 2
    assert mine["items"][0]["createdAt"] >= mine["items"][1]["createdAt"]
    after = ann.get(f"/api/ai/jobs?limit=2&cursor={mine['nextCursor']}").json()
    assert not {job["jobId"] for job in after["items"]} & {job["jobId"] for job in mine["items"]}
    ingests = ada.get("/api/ai/jobs?kind=ingest&status=succeeded").json()["items"]
    assert {job["kind"] for job in ingests} == {"ingest"}
    assert ann.get("/api/ai/jobs?cursor=forged").status_code == 422
    assert ann.get("/api/ai/jobs?status=lost").status_code == 422


def test_a_collection_is_cut_anew_by_a_job_and_gone_back_from(server: Served, ada: httpx.Client) -> None:
    text = "The pilot boards at the buoy. He brings a chart of the channel with him. The launch waits behind the mole."
    sent = {"collection": "pilots", "documents": [{"id": "p", "title": "", "text": text}]}
    assert ada.post("/api/ai/documents", json=sent).status_code == 201
    gate = {"minQuestions": 0, "maxSizeRatio": 1000, "maxLatencyRatio": 1000, "latencySlackMs": 60000}
    wanted = {
        "kind": "rebuild",
        "collection": "pilots",
        "chunker": {"name": "sentences", "size": 20, "overlap": 0},
        "gate": gate,
    }
    with server.client("reader") as reader:
        assert reader.post("/api/ai/jobs", json=wanted).status_code == 403
    job = ended(ada, ada.post("/api/ai/jobs", json=wanted).json()["jobId"])
    assert (job["status"], job["result"]["promoted"]) == ("succeeded", True), job
    live = [each for each in ada.get("/api/ai/collections/pilots/versions").json()["items"] if each["live"]]
    assert {(each["chunker"], each["embedder"]) for each in live} == {("sentences 20 0", "")}
    assert ada.post("/api/ai/collections/pilots/rollback").status_code == 200
    tidy = ada.post("/api/ai/jobs", json={"kind": "optimize", "collection": "pilots"}).json()
    assert ended(ada, tidy["jobId"])["result"]["indexVersion"].startswith("pilots@")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"kind": "magic"}, "kind"),
        ({"kind": ["rebuild"]}, "kind"),
        ({"kind": "rebuild", "collection": "handbook"}, "collection"),
        ({"kind": "rebuild", "collection": "x", "chunker": {"name": "structure", "overlap": 9}}, "overlap"),
        ({"kind": "optimize"}, "collection"),
    ],
)
def test_a_job_that_cannot_be_is_refused_by_its_field(ada: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = ada.post("/api/ai/jobs", json=body)
    assert (answer.status_code, answer.json()["field"].rpartition(".")[2]) == (422, field), answer.text
