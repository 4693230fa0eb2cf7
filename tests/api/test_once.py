"""`Idempotency-Key` over HTTP: one execution, one answer, whoever asks however often."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.api.served import Served


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def asked(server: Served, words: str) -> int:
    return sum(words in str(request.messages) for request in server.script.requests)


@contextmanager
def held_back(server: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Documents are taken in only after the block; the event says that one waits."""
    waits, gate = threading.Event(), asyncio.Event()
    add = server.bench.ingest.add

    async def slow(*told: Any, **named: Any) -> Any:
        waits.set()
        await gate.wait()
        return await add(*told, **named)

    monkeypatch.setattr(server.bench.ingest, "add", slow)
    try:
        yield waits
    finally:
        server.loop.call_soon_threadsafe(gate.set)


def test_p06_fifty_chats_with_one_key_are_one_run_and_one_answer(server: Served, al: httpx.Client) -> None:
    body = {"message": "say p06 exactly once"}
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: al.post("/api/ai/chat", json=body, headers=key("p06")), range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert asked(server, "p06 exactly once") == 1
    streamed = al.post("/api/ai/chat", json=body | {"stream": True}, headers=key("p06")).text
    assert answers[0].json()["requestId"] in streamed
    assert "event: run.started" in streamed
    assert "event: run.completed" in streamed


def test_p07_a_key_that_stands_for_another_request_is_refused_with_a_code(al: httpx.Client, ann: httpx.Client) -> None:
    first = al.post("/api/ai/chat", json={"message": "say p07"}, headers=key("p07"))
    other = al.post("/api/ai/chat", json={"message": "say other"}, headers=key("p07"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    opinion = {"requestId": first.json()["requestId"], "rating": "up"}
    assert al.post("/api/ai/feedback", json=opinion, headers=key("p07")).status_code == 422
    assert ann.post("/api/ai/chat", json={"message": "say other"}, headers=key("p07")).status_code == 200


def test_p08_a_chat_with_the_key_of_one_that_runs_attaches_to_it(server: Served, al: httpx.Client) -> None:
    body = {"message": "hold p08", "stream": True}
    with ThreadPoolExecutor(2) as pool, al.stream("POST", "/api/ai/chat", json=body, headers=key("p08")) as first:
        lines = first.iter_lines()
        next(lines)  # the run has begun
        second = pool.submit(al.post, "/api/ai/chat", json={"message": "hold p08"}, headers=key("p08"))
        third = pool.submit(al.post, "/api/ai/chat", json=body, headers=key("p08"))
        server.release("p08")
        told = "\n".join(lines)
        card = second.result().json()
    assert card["answer"] == "one two three"
    assert card["requestId"] in told
    assert card["requestId"] in third.result().text
    assert asked(server, "hold p08") == 1


def test_p08_an_upload_with_the_key_of_one_that_is_at_it_is_told_when_to_come_back(
    server: Served, al: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload() -> httpx.Response:
        form = {"collection": "once"}
        return al.post("/api/ai/documents", data=form, files={"file": ("p08.txt", b"p08")}, headers=key("p08 upload"))

    with ThreadPoolExecutor(1) as pool:
        with held_back(server, monkeypatch) as waits:
            first = pool.submit(upload)
            assert waits.wait(20)
            second = upload()
        done = first.result()
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_key_in_use")
    assert second.headers["retry-after"] == "1"
    again = upload()
    assert (again.status_code, again.json()) == (201, done.json())
    assert again.headers["idempotent-replayed"] == "true"
    other = al.post(
        "/api/ai/documents", data={"collection": "once"}, files={"file": ("p08.txt", b"!")}, headers=key("p08 upload")
    )
    assert other.status_code == 422


def test_p06_a_batch_that_a_job_takes_in_is_one_job(al: httpx.Client) -> None:
    body = {"collection": "once", "documents": [{"id": "a", "text": "Once."}]}
    first, again = (
        al.post("/api/ai/documents", params={"async": True}, json=body, headers=key("batch")) for _ in range(2)
    )
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["jobId"] == again.json()["jobId"]
    assert again.headers["location"] == first.headers["location"]


def test_a_request_that_was_refused_leaves_its_key_free(al: httpx.Client) -> None:
    wrong = {"message": "say x", "conversationId": "0" * 32}
    assert al.post("/api/ai/chat", json=wrong, headers=key("refused")).status_code == 404
    assert al.post("/api/ai/chat", json={"message": "say x"}, headers=key("refused")).status_code == 200
    opinion = {"requestId": "0" * 32, "rating": "up"}
    assert al.post("/api/ai/feedback", json=opinion, headers=key("refused too")).status_code == 404
    assert al.post("/api/ai/feedback", json=opinion, headers=key("refused too")).status_code == 404


def test_a_run_that_failed_is_told_again_and_not_tried_again(server: Served, al: httpx.Client) -> None:
    body = {"message": "fail only once"}
    first = al.post("/api/ai/chat", json=body, headers=key("fail"))
    calls = asked(server, "fail only once")
    again = al.post("/api/ai/chat", json=body, headers=key("fail"))
    assert (first.status_code, first.json()["requestId"]) == (again.status_code, again.json()["requestId"])
    assert asked(server, "fail only once") == calls


def test_a_second_key_is_not_made_and_the_first_ones_secret_is_not_told_again(owner: httpx.Client) -> None:
    wanted = {"tenantId": "acme", "userId": "kim", "scopes": ["chat"], "name": "once"}
    first, again = (owner.post("/api/ai/keys", json=wanted, headers=key("key")) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {name: value for name, value in first.json().items() if name != "key"}
    made = [item for item in owner.get("/api/ai/keys").json()["items"] if item["name"] == "once"]
    assert len(made) == 1
