"""Documents over HTTP: taken in, found, opened where a citation points, deleted; nothing is ever half there."""

import json
import time
from typing import Any

import httpx
import pytest

COLLECTION = "shelf"


def add(client: httpx.Client, *documents: dict[str, Any], collection: str = COLLECTION) -> httpx.Response:
    return client.post("/api/ai/documents", json={"collection": collection, "documents": list(documents)})


def upload(client: httpx.Client, name: str, content: bytes, **fields: str) -> httpx.Response:
    data = {"collection": COLLECTION, **fields}
    return client.post("/api/ai/documents", data=data, files={"file": (name, content)})


def listed(client: httpx.Client, collection: str = COLLECTION) -> list[str]:
    items = client.get("/api/ai/documents", params={"collection": collection, "limit": 200}).json()["items"]
    return [item["documentId"] for item in items]


def test_a_text_is_found_and_opens_at_its_offsets(ann: httpx.Client) -> None:
    text = "The pilot boards at the outer buoy.\n\nTugs wait inside."
    assert add(ann, {"id": "pilot", "title": "Pilots", "text": text, "metadata": {"lang": "en"}}).status_code == 201
    asked = {"query": "where does the pilot board", "collection": COLLECTION, "k": 3, "filter": {"lang": "en"}}
    found = ann.post("/api/ai/search", json=asked).json()
    best = found["results"][0]
    assert (best["documentId"], best["title"], best["metadata"]) == ("pilot", "Pilots", {"lang": "en"})
    assert found["indexVersion"].startswith(f"{COLLECTION}@")
    opened = ann.get("/api/ai/documents/pilot", params={"collection": COLLECTION}).json()
    assert opened["text"][best["start"] : best["end"]] == best["text"]
    assert not ann.post("/api/ai/search", json=asked | {"filter": {"lang": "de"}}).json()["results"]


def test_a_file_is_named_by_its_last_part_and_replaced_by_the_next(ann: httpx.Client) -> None:
    for text in (b"# Tides\n\nHigh at six.", b"# Tides\n\nHigh at seven."):
        answer = upload(ann, "../../etc/tides.md", text, metadata='{"year": 2026}')
        assert answer.status_code == 201, answer.text
    (document,) = answer.json()["documents"]
    assert (document["documentId"], document["title"], document["metadata"]) == ("tides.md", "Tides", {"year": 2026})
    assert "seven" in ann.get("/api/ai/documents/tides.md").json()["text"]
    assert listed(ann).count("tides.md") == 1


@pytest.mark.parametrize("id_", ["a/b/c", "with space", "über?#%", "x" * 512, "a+b&c=d", "..", "日本語"])
def test_any_printable_id_can_be_used_in_a_path(ann: httpx.Client, id_: str) -> None:
    from urllib.parse import quote

    assert add(ann, {"id": id_, "text": "Moored."}).status_code == 201
    url = f"/api/ai/documents/{quote(id_, safe='')}".replace("..", "%2E%2E")
    assert ann.get(url, params={"collection": COLLECTION}).json()["documentId"] == id_
    assert ann.delete(url, params={"collection": COLLECTION}).status_code == 204
    assert ann.get(url, params={"collection": COLLECTION}).status_code == 404


@pytest.mark.parametrize(
    ("documents", "field"),
    [
        ([], "documents"),
        ([{"text": "x"}], "documents.0.id"),
        ([{"id": "", "text": "x"}], "documents.0.id"),
        ([{"id": "x" * 513, "text": "x"}], "documents.0.id"),
        ([{"id": "a\u0000b", "text": "x"}], "documents.0.id"),
        ([{"id": "a", "text": 1}], "documents.0.text"),
        ([{"id": "a", "text": "x", "metadata": {"k": {"deep": 1}}}], "documents.0.metadata.k"),
        ([{"id": "a", "text": "x", "tenantId": "umbrella"}], "documents.0.tenantId"),
        ([{"id": "a", "text": "  "}], "documents.0.text"),
    ],
)
def test_a_wrong_document_is_named_and_nothing_is_written(ann: httpx.Client, documents: Any, field: str) -> None:
    answer = ann.post("/api/ai/documents", json={"collection": "refused", "documents": documents})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith(field)
    assert listed(ann, "refused") == []


def test_an_empty_document_fails_alone(ann: httpx.Client) -> None:
    answer = add(ann, {"id": "full", "text": "Words."}, {"id": "empty", "text": ""}, collection="batch")
    assert answer.status_code == 201
    assert [document["documentId"] for document in answer.json()["documents"]] == ["full"]
    assert [failed["documentId"] for failed in answer.json()["failed"]] == ["empty"]
    assert listed(ann, "batch") == ["full"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.pdf", b"%PDF-1.7\nthis is not one"),
        ("empty.md", b""),
        ("blank.txt", b" \n"),
        ("x.exe", b"MZ\x00\x01\xff"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_problem_with_the_file(ann: httpx.Client, name: str, content: bytes) -> None:
    answer = upload(ann, name, content)
    assert (answer.status_code, answer.json()["field"]) == (422, "file")
    assert name not in listed(ann)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"collection": "../x"}, "collection"),
        ({"collection": ""}, "collection"),
        ({"metadata": "{"}, "metadata"),
        ({"metadata": "[1]"}, "metadata"),
        ({"metadata": json.dumps({"k": [1]})}, "metadata.k"),
        ({"id": "\x07"}, "id"),
        ({"surprise": "1"}, "surprise"),
    ],
)
def test_a_wrong_form_field_is_named(ann: httpx.Client, fields: dict[str, str], field: str) -> None:
    answer = upload(ann, "fine.md", b"# Fine", **fields)
    assert answer.status_code == 422
    assert answer.json()["field"].startswith(field)
    assert "fine.md" not in listed(ann)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data", b"--x\r\n", 400),
        ("multipart/form-data; boundary=x", b"no boundary in here", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 5_000 + b"\r\nv\r\n--x--", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" * 5_000, 400),
        ("multipart/form-data; boundary=x", b"--x\r\nA: " + b"b" * 500_000, 400),
        ("multipart/form-data; boundary=" + "x" * 60_000, b"--x--\r\n", 400),
        ("multipart/form-data; boundary=x; charset=undefined", b"--x--\r\n", 415),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("text/plain", b"hello", 415),
        ("", b"hello", 415),
        ("application/json", b"{", 400),
    ],
)
def test_v03_a_form_of_the_wrong_kind_is_refused(ann: httpx.Client, kind: str, body: bytes, status: int) -> None:
    answer = ann.post("/api/ai/documents", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_v03_texts_in_a_codec_that_takes_for_ever_hold_nobody_up(ann: httpx.Client) -> None:
    field = b'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\n' + b"a" * 120_000 + b"\r\n"
    kind = "multipart/form-data; boundary=x; charset=punycode"
    began = time.monotonic()
    answer = ann.post("/api/ai/documents", content=field * 8 + b"--x--", headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert time.monotonic() - began < 10  # that codec takes half a minute for them


def test_two_collections_may_hold_the_same_id(ann: httpx.Client) -> None:
    for collection in ("left", "right"):
        assert add(ann, {"id": "twin", "text": f"On the {collection}."}, collection=collection).status_code == 201
    answer = ann.get("/api/ai/documents/twin")
    assert (answer.status_code, answer.json()["field"]) == (422, "collection")
    assert ann.get("/api/ai/documents/twin", params={"collection": "left"}).json()["text"] == "On the left."


def test_the_handbook_is_everybodys_to_read_and_nobodys_to_write(ann: httpx.Client, eve: httpx.Client) -> None:
    for client in (ann, eve):
        page = client.get("/api/ai/documents/keys", params={"collection": "handbook"})
        assert "revoked" in page.json()["text"]
        assert "handbook" in [item["name"] for item in client.get("/api/ai/collections").json()["items"]]
        assert add(client, {"id": "keys", "text": "Mine."}, collection="handbook").status_code == 422
        assert client.delete("/api/ai/documents/keys", params={"collection": "handbook"}).status_code == 422
    assert "revoked" in ann.get("/api/ai/documents/keys", params={"collection": "handbook"}).json()["text"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": " "}, "query"),
        ({"query": "x" * 8_001}, "query"),
        ({"query": "x", "k": 0}, "k"),
        ({"query": "x", "k": 10**9}, "k"),
        ({"query": "x", "k": "3"}, "k"),
        ({"query": "x", "collection": "x' OR 1=1"}, "collection"),
        ({"query": "x", "filter": {"a": None, "b'": 1}}, "filter"),
        ({"query": "x", "tenant": "umbrella"}, "tenant"),
    ],
)
def test_a_wrong_search_is_named(ann: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = ann.post("/api/ai/search", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"].startswith(field)
