"""Versions, builds and golden questions of collections over HTTP: the tenant's own, and nobody else's."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import embedded_anew
from tests.api.served import Served


def add(client: httpx.Client, collection: str, **texts: str) -> None:
    documents = [{"id": name, "text": text} for name, text in texts.items()]
    answer = client.post("/api/ai/documents", json={"collection": collection, "documents": documents})
    assert answer.status_code == 201, answer.text


def search(client: httpx.Client, collection: str, as_of: str | None = None) -> httpx.Response:
    asked: dict[str, Any] = {"query": "where does the pilot board?", "collection": collection}
    return client.post("/api/ai/search", json=asked | ({"asOf": as_of} if as_of else {}))


def texts(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return sorted(found["text"] for found in answer.json()["results"])


def test_an_answers_index_version_can_be_searched_again(ann: httpx.Client) -> None:
    add(ann, "past", a="The pilot boards at the outer buoy.")
    before = search(ann, "past").json()["indexVersion"]
    add(ann, "past", a="The pilot boards at the mole.")
    assert texts(search(ann, "past")) == ["The pilot boards at the mole."]
    assert texts(search(ann, "past", before)) == ["The pilot boards at the outer buoy."]
    listed = ann.get("/api/ai/collections/past/versions").json()["items"]
    assert before in [version["indexVersion"] for version in listed]
    assert all(version["live"] for version in listed)


def test_erasure_wins_over_as_of(ann: httpx.Client) -> None:
    add(ann, "erased", a="The pilot boards at the outer buoy.", b="Tugs wait.")
    before = search(ann, "erased").json()["indexVersion"]
    assert ann.delete("/api/ai/documents/a", params={"collection": "erased"}).status_code == 204
    gone = search(ann, "erased", before)
    assert (gone.status_code, gone.json()["code"]) == (410, "version_gone")
    assert texts(search(ann, "erased")) == ["Tugs wait."]


@pytest.mark.parametrize("as_of", ["past@99999", "other@1", "nonsense", "x" * 128])
def test_a_version_that_never_was_is_404(ann: httpx.Client, as_of: str) -> None:
    add(ann, "never", a="The pilot boards.")
    assert search(ann, "never", as_of).status_code == 404


def test_a_new_build_is_judged_promoted_and_rolled_back(ann: httpx.Client, server: Served) -> None:
    add(ann, "built", a="The pilot boards at the outer buoy.", b="Tugs wait inside.")
    path = "/api/ai/collections/built"
    assert ann.post(f"{path}/promote").json()["code"] == "conflict"
    golden = {"items": [{"question": "where does the pilot board?", "documentId": "a", "passage": "outer buoy"}]}
    assert ann.post(f"{path}/golden", json=golden).status_code == 201
    before = search(ann, "built").json()["indexVersion"]
    server.call(server.bench.rebuild.build("acme", "built", embedded_anew(server.bench.embedder)))

    refused = ann.post(f"{path}/promote", json={"minQuestions": 2, "maxSizeRatio": 10, "latencySlackMs": 60_000})
    assert (refused.json()["promoted"], len(refused.json()["failures"])) == (False, 1)
    assert search(ann, "built").json()["indexVersion"] == before
    promoted = ann.post(f"{path}/promote", json={"minRecall": 1.0, "maxSizeRatio": 10, "latencySlackMs": 60_000})
    assert promoted.json()["promoted"], promoted.text
    now = search(ann, "built")
    assert len(texts(now)) == 2
    assert now.json()["indexVersion"].rpartition(".")[0] == promoted.json()["indexVersion"].rpartition(".")[0]
    assert ann.post(f"{path}/rollback").status_code == 200
    assert len(texts(search(ann, "built", now.json()["indexVersion"]))) == 2
    assert "." not in search(ann, "built").json()["indexVersion"]


def test_golden_questions_go_with_their_document(ann: httpx.Client) -> None:
    add(ann, "gold", a="The pilot boards at the outer buoy.", b="Tugs wait inside.")
    path = "/api/ai/collections/gold/golden"
    items = [{"question": "Where?", "documentId": name} for name in ("a", "b", "b")]
    kept = ann.post(path, json={"items": items}).json()["items"]
    assert ann.delete("/api/ai/documents/a", params={"collection": "gold"}).status_code == 204
    assert [each["documentId"] for each in ann.get(path).json()["items"]] == ["b", "b"]
    assert ann.delete(f"{path}/{kept[1]['goldenId']}").status_code == 204
    assert ann.delete(f"{path}/{kept[1]['goldenId']}").status_code == 404


def test_optimising_says_which_version_answers(ann: httpx.Client) -> None:
    add(ann, "tidy", a="The pilot boards.")
    answer = ann.post("/api/ai/collections/tidy/optimise")
    assert answer.json()["indexVersion"] == search(ann, "tidy").json()["indexVersion"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "versions"),
        ("POST", "optimise"),
        ("GET", "golden"),
        ("POST", "golden"),
        ("DELETE", "golden/x"),
    ],
)
def test_another_tenants_collection_is_404(eve: httpx.Client, ann: httpx.Client, method: str, path: str) -> None:
    add(ann, "ours", a="The pilot boards.")
    body = {"items": [{"question": "Where?", "documentId": "a"}]} if (method, path) == ("POST", "golden") else None
    answer = eve.request(method, f"/api/ai/collections/ours/{path}", json=body)
    assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("path", ["promote", "rollback"])
def test_a_build_of_another_tenant_is_not_there(eve: httpx.Client, ann: httpx.Client, path: str) -> None:
    add(ann, "ours", a="The pilot boards.")
    assert eve.post(f"/api/ai/collections/ours/{path}").status_code == 404


@pytest.mark.parametrize("path", ["promote", "rollback", "optimise"])
def test_the_handbook_is_nobodys_to_change(ann: httpx.Client, path: str) -> None:
    assert ann.post(f"/api/ai/collections/handbook/{path}").status_code == 403
    assert ann.get("/api/ai/collections/handbook/versions").json()["items"]


@pytest.mark.parametrize("path", ["promote", "rollback", "optimise"])
def test_changing_a_collection_needs_the_right_to_write_documents(reader: httpx.Client, path: str) -> None:
    assert reader.post(f"/api/ai/collections/ours/{path}").status_code == 403


@pytest.fixture
def reader(server: Served) -> Iterator[httpx.Client]:
    with server.client("reader") as client:
        yield client


def test_d10_a_damaged_collection_is_503_with_its_code_and_shows_in_its_tenants_health(
    ada: httpx.Client, eve: httpx.Client, server: Served
) -> None:
    add(ada, "broken", a="The pilot boards.")
    add(eve, "broken", a="The pilot boards.")
    base = Place("acme", "broken").base
    for file in (server.bench.settings.home / "lance" / f"{base}.lance" / "data").iterdir():
        file.write_bytes(b"garbage")
    add(ada, "whole", a="The pilot boards.")
    closed = search(ada, "broken")
    assert (closed.status_code, closed.json()["code"]) == (503, "index_damaged")
    assert len(texts(search(ada, "whole"))) == len(texts(search(eve, "broken"))) == 1
    (damage,) = ada.get("/api/ai/health").json()["damages"]
    assert (damage["collection"], damage["part"]) == ("broken", "rows")
    assert not ada.get("/api/ai/health").json()["well"]
    assert eve.get("/api/ai/health").json()["damages"] == []
    server.call(server.bench.rebuild.start_over(Place("acme", "broken")))
    assert ada.get("/api/ai/health").json()["damages"] == []
