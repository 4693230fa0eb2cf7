"""Every route of the API, found in its own document: whatever comes is answered, and never by a failure of ours."""

from collections.abc import Iterator
from typing import Any
from unicodedata import normalize
from urllib.parse import quote

import httpx
import pytest

from tests.api.openapi import JSON, Route, routes_of
from tests.api.served import Served

GARBAGE = [b"", b"{", b"[]", b"null", b'"\xff\xfe"', b'{"a": NaN}', b'{"\\ud800": "\\udfff"}', b"[" * 10_000]
PRIVILEGES = ("role", "scopes", "owner", "isOwner", "tenantId", "tenant_id", "userId", "quota", "budgetUsd", "state")
# Fields whose names are the caller's to choose: a document's labels, a filter, what a tool is given, a wanted answer.
OPEN = {"metadata", "filter", "arguments", "responseSchema", "schema"}
WRONG: list[Any] = [None, True, -1, 10**18, "", "\u202e", "'; --", "x" * 10_000, [[]], [None], {}, {"a": {"b": []}}]
NAMES = ["x", "../../etc", "a'b\"c", "\u0000", "\u202e", "x" * 2_000]
NFC, NFD = normalize("NFC", "caf\u00e9"), normalize("NFD", "caf\u00e9")


@pytest.fixture(scope="module")
def routes(server: Served) -> list[Route]:
    return routes_of(server)


def fine(answer: httpx.Response) -> bool:
    """Answered, and a refusal in the one shape that all have."""
    if answer.status_code < 400:
        return True
    problem = answer.json()
    return answer.status_code < 500 and problem["status"] == answer.status_code and bool(problem["code"])


def bodies(route: Route) -> Iterator[dict[str, Any]]:
    yield dict.fromkeys(route.fields, "x")
    for number, name in enumerate(route.fields):
        # A part of the product of both for each field, and every value for some.
        yield from ({**dict.fromkeys(route.fields, "x"), name: wrong} for wrong in WRONG[number % 3 :: 3])


def test_v09_no_body_at_any_route_is_a_failure_of_the_server(owner: httpx.Client, routes: list[Route]) -> None:
    for route in routes:
        if "requestBody" not in route.operation:
            continue
        for garbage in GARBAGE:
            answer = owner.request(route.method, route.at("x"), content=garbage, headers=JSON)
            assert fine(answer), (route.path, garbage[:20], answer.text)
        for body in bodies(route):
            answer = owner.request(route.method, route.at("x"), json=body)
            assert fine(answer), (route.path, body, answer.text)


def test_v09_no_name_in_a_path_is_a_failure_of_the_server(owner: httpx.Client, routes: list[Route]) -> None:
    for route in routes:
        for name in NAMES if "{" in route.path else ():
            answer = owner.request(route.method, route.at(name), json={} if "requestBody" in route.operation else None)
            assert fine(answer), (route.path, name, answer.text)


def test_v12_no_parameter_at_any_route_is_a_failure_of_the_server(owner: httpx.Client, routes: list[Route]) -> None:
    pages = 0
    for route in routes:
        for name in route.parameters if route.method == "GET" else ():
            for wrong in ("-1", "1000000000", "x", "W10", "\u202e", "' OR 1=1", "\u0000", "9" * 400):
                answer = owner.get(route.at("x"), params={name: wrong})
                assert fine(answer), (route.path, name, wrong, answer.text)
                if name == "cursor" and wrong in {"x", "W10"}:
                    pages += 1
                    assert answer.status_code in {404, 422}, (route.path, wrong)
    assert pages > 10


@pytest.mark.parametrize(
    "name",
    ["a\u200bb", "\u202egnp.exe", "a\u2066b", "a\u00adb", "\ufeffa", "a\tb", "a\u2028b", "\ue000", "\U000e0061"],
)
def test_v15_a_name_with_hidden_signs_is_refused(owner: httpx.Client, ann: httpx.Client, name: str) -> None:
    asked = {"collection": "names", "documents": [{"id": name, "text": "x"}]}
    assert ann.post("/api/ai/documents", json=asked).status_code == 422
    key = {"tenantId": name, "userId": "ann", "scopes": ["chat"], "name": ""}
    for field in ("tenantId", "userId", "name"):
        answer = owner.post("/api/ai/keys", json=key | {"tenantId": "acme", field: name})
        assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_v15_what_looks_the_same_is_the_same_document(ann: httpx.Client) -> None:
    for text, name in (("First.", NFC), ("Second.", NFD)):
        asked = {"collection": "names", "documents": [{"id": name, "text": text}]}
        assert ann.post("/api/ai/documents", json=asked).json()["documents"][0]["documentId"] == NFC
    listed = ann.get("/api/ai/documents", params={"collection": "names"}).json()["items"]
    assert [item["documentId"] for item in listed] == [NFC]
    for name in (NFC, NFD):
        url = f"/api/ai/documents/{quote(name)}?collection=names"
        assert ann.get(url).json()["text"] == "Second."
    assert ann.delete(url).status_code == 204


@pytest.mark.parametrize("name", ["\u0430cme", "acm\u0435", "\u1d43cme", "a\u0301cme", "acme\u3000"])
def test_v15_a_collection_has_a_name_in_plain_letters(ann: httpx.Client, name: str) -> None:
    asked = {"collection": name, "documents": [{"id": "a", "text": "x"}]}
    assert ann.post("/api/ai/documents", json=asked).status_code == 422


def test_v02_a_lone_surrogate_in_a_document_is_replaced_everywhere(ann: httpx.Client) -> None:
    asked = (
        b'{"collection": "broken", "documents": [{"id": "a", "title": "t\\ud800", "text": "The lamp\\udfff is lit.",'
        b' "metadata": {"k": "v\\udbff"}}]}'
    )
    assert ann.post("/api/ai/documents", content=asked, headers=JSON).status_code == 201
    opened = ann.get("/api/ai/documents/a", params={"collection": "broken"}).json()
    assert (opened["text"], opened["title"]) == ("The lamp\ufffd is lit.", "t\ufffd")
    found = ann.post("/api/ai/search", json={"query": "is the lamp lit", "collection": "broken"}).json()["results"]
    assert (found[0]["text"], found[0]["metadata"]) == ("The lamp\ufffd is lit.", {"k": "v\ufffd"})


def test_a20_every_object_that_anybody_sends_is_closed(routes: list[Route]) -> None:
    closed = 0
    for route in routes:
        for shape in route.shapes:
            for place, part in shape.places():
                if part.opened.get("type") == "object" and not (place and place[-1] in OPEN):
                    assert part.opened.get("additionalProperties") is False, (str(route), place)
                    closed += 1
    assert closed > 15


def test_a20_nobody_gives_himself_a_role_a_tenant_or_a_quota(owner: httpx.Client, routes: list[Route]) -> None:
    tried = 0
    for route in routes:
        for shape in route.shapes:
            for place, part in shape.places():
                for name in PRIVILEGES if part.properties else ():
                    if name in part.properties:
                        continue  # the owner's own routes: who may not use them is refused before
                    body = shape.having("owner", (*place, name))
                    answer = owner.request(route.method, route.at("x"), json=body)
                    assert answer.status_code == 422, (str(route), place, name, answer.text)
                    wrong = {error["field"] for error in answer.json()["errors"]}
                    assert ".".join(map(str, (*place, name))) in wrong, (str(route), place, name)
                    tried += 1
    assert tried > 100


@pytest.mark.parametrize(
    ("path", "fields"), [("/api/ai/documents", {"collection": "forms"}), ("/api/ai/tables", {"name": "forms"})]
)
def test_a20_a_form_is_closed_too(owner: httpx.Client, path: str, fields: dict[str, str]) -> None:
    for name in PRIVILEGES:
        files = {"file": ("x.csv", b"a,b\n1,2\n")}
        answer = owner.post(path, data=fields | {name: "owner"}, files=files)
        assert (answer.status_code, answer.json()["field"]) == (422, name)


def test_a20_what_only_the_owner_may_give_is_refused_to_everybody_else(ada: httpx.Client, routes: list[Route]) -> None:
    """Each route that has such a field at all is the owner's."""
    found = 0
    for route in routes:
        for shape in route.shapes:
            if shape.properties.keys() & set(PRIVILEGES):
                answer = ada.request(route.method, route.at("x"), json=shape.least())
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), str(route)
                found += 1
    assert found >= 2
