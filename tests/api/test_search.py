"""Search over HTTP beyond the top k: filters as trees, and every candidate with its reasons."""

from typing import Any

import httpx
import pytest

PORT = [
    {"id": "pilot", "text": "The pilot boards at the outer buoy.", "metadata": {"lang": "en", "year": 2026}},
    {"id": "tug", "text": "Tugs wait inside the harbour.", "metadata": {"lang": "en", "year": 2024}},
    {"id": "lotse", "text": "Der Lotse kommt an der Tonne an Bord.", "metadata": {"lang": "de", "year": 2025}},
]


@pytest.fixture
def port(ann: httpx.Client) -> str:
    answer = ann.post("/api/ai/documents", json={"collection": "port", "documents": PORT})
    assert answer.status_code == 201, answer.text
    return "port"


def search(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    answer = client.post("/api/ai/search", json={"query": "where does the pilot board", **asked})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"year": {"gte": 2025}}, {"pilot", "lotse"}),
        ({"year": {"gt": 2024, "lt": 2026}}, {"lotse"}),
        ({"or": [{"lang": "de"}, {"year": {"in": [2024]}}]}, {"lotse", "tug"}),
        ({"not": {"lang": {"ne": "en"}}}, {"pilot", "tug"}),
        ({"lang": {"exists": False}}, set()),
        ({"lang": "en", "year": 2026}, {"pilot"}),
    ],
)
def test_v13_a_filter_is_a_tree_of_conditions(ann: httpx.Client, port: str, where: Any, expected: set[str]) -> None:
    found = search(ann, collection=port, filter=where)
    assert {result["documentId"] for result in found["results"]} == expected


@pytest.mark.parametrize(
    "where",
    [
        "lang = 'en'",
        {"lang": {"like": "%"}},
        {"or": ["lang = 'en'"]},
        {"a' OR '1'='1": {"eq": 1}},
        {"and": {"x) OR (1=1": {"lt": 1}}},
        {"lang": [None]},
    ],
)
def test_v14_another_filter_is_named_and_not_run(ann: httpx.Client, port: str, where: Any) -> None:
    answer = ann.post("/api/ai/search", json={"query": "pilot", "collection": port, "filter": where})
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("filter")


def test_a_search_explains_every_candidate(ann: httpx.Client, port: str) -> None:
    plain = search(ann, collection=port, k=1)
    assert "explanation" not in plain
    found = search(ann, collection=port, k=1, explain=True, rerank="maxsim")
    first, *others = found["explanation"]["candidates"]
    assert first["documentId"] == plain["results"][0]["documentId"] == "pilot"
    assert first["whyNot"] == ""
    assert {"cosine", "bm25", "vectorRank", "textRank", "fused", "fusedRank", "reranked", "rank"} <= set(first)
    assert len(others) == 2
    assert all(other["whyNot"] for other in others)
    timings = {"rewordMs", "varyMs", "embedMs", "legsMs", "rankMs", "rerankMs", "passagesMs"}
    assert timings == set(found["explanation"]["timings"])
    assert found["indexVersion"] == plain["indexVersion"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"diversity": 2}, "diversity"),
        ({"neighbours": 9}, "neighbours"),
        ({"rerank": "x"}, "rerank"),
        ({"variants": 6}, "variants"),
        ({"history": ["x"] * 13}, "history"),
        ({"explain": 1}, "explain"),
    ],
)
def test_an_impossible_wish_is_named(ann: httpx.Client, asked: dict[str, Any], field: str) -> None:
    answer = ann.post("/api/ai/search", json={"query": "pilot", **asked})
    assert answer.status_code == 422
    assert answer.json()["field"] == field


def test_a_follow_up_is_searched_as_a_question_of_its_own_and_the_search_says_so(ann: httpx.Client, port: str) -> None:
    asked = {"collection": port, "query": "And where?", "history": ["When does the pilot board?"], "rewrite": "words"}
    answer = ann.post("/api/ai/search", json=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["search"]["query"] == "When does the pilot board? And where?"
    assert found["search"]["rewrittenBy"] == "words"
    assert found["results"][0]["documentId"] == "pilot"
    plain = ann.post("/api/ai/search", json=asked | {"rewrite": "off"}).json()
    assert plain["search"]["query"] == "And where?"


def test_a_models_wordings_are_searched_beside_the_query_and_shown(ann: httpx.Client, port: str) -> None:
    found = search(ann, collection=port, variants=2, explain=True)
    assert found["search"]["variants"] == ["Hello."]  # what the served model says to everything
    assert found["search"]["variantsPrompt"].startswith("rag.variants@1#")
    assert all(len(candidate["variantRanks"]) == 1 for candidate in found["explanation"]["candidates"])
