"""T12 where answers are kept: one that was made of a group's document is found again by its members, by nobody else.

The answers are the extractive answerer's, which quotes what it was given to read; each route keeps all of them.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.served import OWNER_KEY, Served, served

CONFIG = """
providers: {own: {kind: extractive}}
models: {quoting: {provider: own, model: extractive}}
routes:
  default: {candidates: [quoting], cache: {exact_ttl_s: 3600}}
  exact: {candidates: [quoting], cache: {exact_ttl_s: 3600}}
  alike: {candidates: [quoting], cache: {semantic_ttl_s: 3600, semantic_threshold: 0.5}}
"""
SECRET = "The bonus of the chair is nine barrels of rum."
OPENLY = "The bonus of the crew is a day ashore."
PEOPLE = {"cfo": ["payroll"], "auditor": ["payroll"], "clerk": [], "rival": ["sales"]}
QUESTION = "What is the bonus of the chair?"
REWORDED = "what is the bonus of the chair"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("kept"), CONFIG) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name, groups in PEOPLE.items():
                asked = {"tenantId": "crew", "userId": name, "scopes": ["chat", "documents"], "groups": groups}
                up.keys[name] = owner.post("/api/ai/keys", json=asked).json()["key"]
        with up.client("cfo") as cfo:
            secret = {"id": "secret", "text": SECRET, "allowGroups": ["payroll"]}
            both = {"collection": "pay", "documents": [secret, {"id": "open", "text": OPENLY}]}
            assert cfo.post("/api/ai/documents", json=both).status_code == 201
        yield up


@pytest.fixture(autouse=True)
def _empty(door: Served) -> None:
    door.call(door.bench.gateway.cache.forget("crew"))


def ask(door: Served, who: str, question: str, route: str, **more: Any) -> dict[str, Any]:
    """The card of an answer from the collection, by one whose kept answers are all written when it comes back."""
    asked = {"message": question, "mode": "rag", "collection": "pay", "model": route} | more
    with door.client(who) as client:
        answer = client.post("/api/ai/chat", json=asked)
    assert answer.status_code == 200, answer.text
    door.call(door.bench.gateway.cache.settled())
    card: dict[str, Any] = answer.json()
    return card


def complete(door: Served, who: str, model: str) -> str:
    """All that `/v1` says to the question."""
    asked = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
    with door.client(who) as client:
        answer = client.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.parametrize(("route", "again"), [("exact", QUESTION), ("alike", REWORDED)])
def test_t12_an_answer_kept_for_a_group_is_given_to_its_members_alone(door: Served, route: str, again: str) -> None:
    first, second = ask(door, "cfo", QUESTION, route), ask(door, "auditor", again, route)
    assert (first["cached"], second["cached"]) == (False, True)
    assert "rum" in first["answer"] == second["answer"]
    for stranger in ("clerk", "rival"):
        for question in (QUESTION, again):
            told = ask(door, stranger, question, route)
            assert "rum" not in str(told)
            assert "secret" not in str(told)
    # Theirs is kept too, for one another and not for the group.
    assert ask(door, "clerk", again, route)["cached"]
    assert "rum" in ask(door, "auditor", QUESTION, route)["answer"]


@pytest.mark.parametrize("model", ["pilothouse/rag", "exact", "alike"])
def test_t12_the_wire_of_openai_gives_nobody_what_was_kept_of_a_graph(door: Served, model: str) -> None:
    for route in ("exact", "alike"):
        assert "rum" in ask(door, "cfo", QUESTION, route)["answer"]
    assert "rum" not in complete(door, "clerk", model)


@pytest.mark.parametrize("route", ["exact", "alike"])
def test_t12_a_follow_up_finds_no_answer_of_another_groups_conversation(door: Served, route: str) -> None:
    def follow_up(who: str) -> dict[str, Any]:
        first = ask(door, who, "What is a bonus?", route)
        return ask(door, who, "And of the chair?", route, conversationId=first["conversationId"])

    told = follow_up("cfo")
    assert "bonus" in told["search"]["query"]
    assert "rum" in told["answer"]
    assert "rum" not in str(follow_up("clerk"))


@pytest.mark.parametrize("route", ["exact", "alike"])
def test_t12_who_has_left_a_group_or_sees_a_document_no_more_gets_no_answer_that_was_kept_of_it(
    door: Served, route: str
) -> None:
    with door.client("owner") as owner, door.client("cfo") as cfo:
        asked = {"tenantId": "crew", "userId": "mate", "scopes": ["chat"], "groups": ["payroll"]}
        made = owner.post("/api/ai/keys", json=asked).json()
        door.keys["mate"] = made["key"]
        assert "rum" in ask(door, "mate", QUESTION, route)["answer"]
        assert owner.patch(f"/api/ai/keys/{made['keyId']}", json={"groups": []}).status_code == 200
        assert "rum" not in str(ask(door, "mate", QUESTION, route))

        def tell(groups: list[str]) -> None:
            told = cfo.patch("/api/ai/documents/secret", params={"collection": "pay"}, json={"allowGroups": groups})
            assert told.status_code == 200

        tell([])
        assert "rum" in ask(door, "rival", QUESTION, route)["answer"]
        tell(["payroll"])
        assert "rum" not in str(ask(door, "rival", QUESTION, route))
