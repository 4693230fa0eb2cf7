"""T12 and its neighbours: who is in none of a document's groups meets it at no door, and its members at each."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.served import Served

SECRET = "The chair's bonus is nine barrels of rum."
OPENLY = "The crew's bonus is a day ashore."
PEOPLE = {"cfo": ["payroll"], "clerk": [], "rival": ["sales"]}


@pytest.fixture(scope="module", autouse=True)
def _people(server: Served) -> None:
    with server.client("owner") as owner:
        for name, groups in PEOPLE.items():
            asked = {"tenantId": "crew", "userId": name, "scopes": ["chat", "documents"], "groups": groups}
            made = owner.post("/api/ai/keys", json=asked)
            assert (made.status_code, made.json()["groups"]) == (201, groups)
            server.keys[name] = made.json()["key"]
    with server.client("cfo") as cfo:
        documents = [
            {"id": "secret", "text": SECRET, "allowGroups": ["payroll"], "trust": "tenant"},
            {"id": "open", "text": OPENLY},
        ]
        answer = cfo.post("/api/ai/documents", json={"collection": "pay", "documents": documents})
        assert answer.status_code == 201, answer.text
        shown = {each["documentId"]: (each["allowGroups"], each["trust"]) for each in answer.json()["documents"]}
        assert shown == {"secret": (["payroll"], "tenant"), "open": ([], "untrusted")}
        only = {"collection": "board", "documents": [{"id": "m", "text": SECRET, "allowGroups": ["payroll"]}]}
        assert cfo.post("/api/ai/documents", json=only).status_code == 201


@pytest.fixture
def cfo(server: Served) -> Iterator[httpx.Client]:
    with server.client("cfo") as client:
        yield client


@pytest.fixture(params=["clerk", "rival"])
def stranger(server: Served, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with server.client(request.param) as client:
        yield client


def search(client: httpx.Client, collection: str = "pay", **more: Any) -> dict[str, Any]:
    answer = client.post("/api/ai/search", json={"query": "what is the bonus?", "collection": collection, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    "more", [{}, {"explain": True, "k": 1}, {"neighbours": 3}, {"diversity": 1, "rerank": "maxsim"}]
)
def test_t12_no_search_shows_a_stranger_a_words_of_it(
    cfo: httpx.Client, stranger: httpx.Client, more: dict[str, Any]
) -> None:
    told = search(stranger, **more)
    assert [each["documentId"] for each in told["results"]] == ["open"]
    assert "secret" not in str(told)
    assert "rum" not in str(told)
    assert {each["documentId"] for each in search(cfo, **more | {"k": 6})["results"]} == {"open", "secret"}
    assert {each["trust"] for each in told["results"]} == {"untrusted"}, "nobody has vouched for it"


def test_t12_no_list_counts_it(cfo: httpx.Client, stranger: httpx.Client) -> None:
    def held(client: httpx.Client) -> list[tuple[str, int]]:
        listed = client.get("/api/ai/collections").json()["items"]
        return [(each["name"], each["documents"]) for each in listed if each["name"] != "handbook"]

    assert held(stranger) == [("pay", 1)]
    assert held(cfo) == [("board", 1), ("pay", 2)]
    listed = stranger.get("/api/ai/documents", params={"collection": "pay"}).json()["items"]
    assert [each["documentId"] for each in listed] == ["open"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
@pytest.mark.parametrize("collection", ["pay", None])
def test_t12_it_is_as_one_that_never_was(stranger: httpx.Client, method: str, collection: str | None) -> None:
    answers = [
        stranger.request(
            method,
            f"/api/ai/documents/{name}",
            params={} if collection is None else {"collection": collection},
            json={"allowGroups": []} if method == "PATCH" else None,
        )
        for name in ("secret", "never")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]


@pytest.mark.parametrize("groups", [None, [], ["payroll"], ["sales"]])
def test_t12_nobody_writes_over_what_they_do_not_see(
    cfo: httpx.Client, stranger: httpx.Client, groups: list[str] | None
) -> None:
    document = {"id": "secret", "text": "Mine.", **({} if groups is None else {"allowGroups": groups})}
    answer = stranger.post("/api/ai/documents", json={"collection": "pay", "documents": [document]})
    assert (answer.status_code, answer.json()["code"]) == (409, "document_taken")
    assert cfo.get("/api/ai/documents/secret", params={"collection": "pay"}).json()["text"] == SECRET


def test_nobody_writes_what_they_would_not_see(stranger: httpx.Client) -> None:
    document = {"id": "lost", "text": "Gone.", "allowGroups": ["payroll"]}
    answer = stranger.post("/api/ai/documents", json={"collection": "pay", "documents": [document]})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "documents.0.allowGroups")
    own = stranger.patch("/api/ai/documents/open", params={"collection": "pay"}, json={"allowGroups": ["payroll"]})
    assert own.status_code == 422


@pytest.mark.parametrize("where", [{"allow_groups": "payroll"}, {"not": {"allowGroups": {"exists": True}}}])
def test_v13_a_filter_reaches_no_group(stranger: httpx.Client, where: dict[str, Any]) -> None:
    asked = {"query": "bonus", "collection": "pay", "filter": where}
    assert stranger.post("/api/ai/search", json=asked).status_code == 422


def test_t12_neither_an_answer_nor_an_agents_tool_reads_it(
    server: Served, cfo: httpx.Client, stranger: httpx.Client
) -> None:
    for mode in ("rag", "agent"):
        before = len(server.script.requests)
        asked = {"message": "say what is the bonus?", "mode": mode, "collection": "pay"}
        card = stranger.post("/api/ai/chat", json=asked)
        assert card.status_code == 200, card.text
        assert "rum" not in card.text
        assert not any("rum" in str(request) for request in server.script.requests[before:])
    asked["mode"] = "rag"
    assert cfo.post("/api/ai/chat", json=asked).status_code == 200
    assert "rum" in str(server.script.requests[-1])


def test_t12_a_guess_at_its_text_is_no_golden_question(cfo: httpx.Client, stranger: httpx.Client) -> None:
    guess = {"items": [{"question": "what is the bonus?", "documentId": "secret", "passage": "rum"}]}
    path = "/api/ai/collections/pay/golden"
    assert stranger.post(path, json=guess).status_code == 404
    assert cfo.post(path, json=guess).status_code == 201
    assert stranger.get(path).json()["items"] == []
    assert {each["documentId"] for each in cfo.get(path).json()["items"]} == {"secret"}


def test_t12_changed_groups_count_at_once_for_keys_documents_and_earlier_versions(
    server: Served, owner: httpx.Client
) -> None:
    made = owner.post(
        "/api/ai/keys", json={"tenantId": "crew", "userId": "mate", "scopes": ["chat", "documents"], "groups": ["deck"]}
    ).json()
    server.keys["mate"] = made["key"]
    with server.client("mate") as mate, server.client("clerk") as clerk:
        document = {"id": "rota", "text": "The bonus watch is at four.", "allowGroups": ["deck"]}
        added = mate.post("/api/ai/documents", json={"collection": "rota", "documents": [document]})
        assert added.status_code == 201
        version = search(mate, "rota")["indexVersion"]
        assert search(clerk, "rota")["results"] == search(clerk, "rota", asOf=version)["results"] == []
        again = mate.post(
            "/api/ai/documents", json={"collection": "rota", "documents": [{**document, "allowGroups": None}]}
        )
        assert again.json()["documents"][0]["allowGroups"] == ["deck"]

        opened = mate.patch("/api/ai/documents/rota", params={"collection": "rota"}, json={"allowGroups": []})
        assert (opened.status_code, opened.json()["allowGroups"]) == (200, [])
        assert len(search(clerk, "rota")["results"]) == len(search(clerk, "rota", asOf=version)["results"]) == 1

        closed = mate.patch("/api/ai/documents/rota", params={"collection": "rota"}, json={"allowGroups": ["deck"]})
        assert closed.status_code == 200
        assert search(clerk, "rota")["results"] == search(clerk, "rota", asOf=version)["results"] == []

        assert len(search(mate, "rota")["results"]) == 1
        changed = owner.patch(f"/api/ai/keys/{made['keyId']}", json={"groups": []})
        assert (changed.status_code, changed.json()["groups"]) == (200, [])
        assert search(mate, "rota")["results"] == search(mate, "rota", asOf=version)["results"] == []


@pytest.mark.parametrize("groups", [["*"], [""], [" x"], ["x" * 129], ["a"] * 33, "payroll", [7]])
def test_odd_groups_are_refused(cfo: httpx.Client, groups: Any) -> None:
    document = {"id": "odd", "text": "Odd.", "allowGroups": groups}
    answer = cfo.post("/api/ai/documents", json={"collection": "pay", "documents": [document]})
    assert answer.status_code == 422, answer.text


def test_an_upload_names_its_groups_and_is_not_trusted(cfo: httpx.Client, stranger: httpx.Client) -> None:
    form = {"collection": "files", "allowGroups": '["payroll"]'}
    answer = cfo.post("/api/ai/documents", data=form, files={"file": ("pay.txt", b"A bonus of pearls.")})
    assert answer.status_code == 201, answer.text
    (made,) = answer.json()["documents"]
    assert (made["allowGroups"], made["trust"]) == (["payroll"], "untrusted")
    assert stranger.get("/api/ai/documents/pay.txt", params={"collection": "files"}).status_code == 404
