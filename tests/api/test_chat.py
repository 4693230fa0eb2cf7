"""Chat over JSON and server-sent events."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.served import Served


def events_of(text: str) -> list[dict[str, Any]]:
    """The frames of a stream; comments are left out."""
    frames = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    found = []
    for frame in frames:
        number, kind, data = frame.split("\n")
        assert number.startswith("id: ")
        assert kind.startswith("event: ")
        assert data.startswith("data: ")
        found.append({"id": int(number[4:]), "type": kind[7:], "data": json.loads(data[6:])})
    return found


def streamed(client: httpx.Client, message: str, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/api/ai/chat", json={"message": message, "stream": True, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events_of(answer.text)


def test_json_gives_the_answer_card(ann: httpx.Client) -> None:
    answer = ann.post("/api/ai/chat", json={"message": "say hi there", "mode": "chat"})
    card = answer.json()
    assert answer.status_code == 200
    assert (card["status"], card["answer"], card["model"]) == ("completed", "hi there", "scripted")
    assert answer.headers["x-request-id"] == card["requestId"]


def test_a_stream_carries_the_same_answer_in_numbered_events(ann: httpx.Client) -> None:
    events = streamed(ann, "say hi there")
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "run.started"
    assert events[-1]["type"] == "run.completed"
    text = "".join(event["data"]["text"] for event in events if event["type"] == "message.delta")
    assert text == events[-1]["data"]["card"]["answer"] == "hi there"


def test_rag_without_a_collection_reads_the_handbook(ann: httpx.Client) -> None:
    events = streamed(ann, "say How is a key revoked?", mode="rag")
    (retrieved,) = [event["data"] for event in events if event["type"] == "retrieval.completed"]
    assert retrieved["passages"][0]["documentId"] == "keys"
    assert retrieved["passages"][0]["collection"] == "handbook"


def test_a_conversation_remembers_and_can_be_deleted(ann: httpx.Client) -> None:
    first = ann.post("/api/ai/chat", json={"message": "say one"}).json()
    second = ann.post("/api/ai/chat", json={"message": "say two", "conversationId": first["conversationId"]}).json()
    assert second["conversationId"] == first["conversationId"]
    url = f"/api/ai/conversations/{first['conversationId']}"
    assert [turn["content"] for turn in ann.get(url).json()["messages"]] == ["say one", "one", "say two", "two"]
    assert ann.delete(url).status_code == 204
    assert ann.get(url).status_code == 404
    assert ann.get(f"/api/ai/runs/{first['requestId']}").status_code == 404


def test_a_failed_run_is_a_problem_that_names_the_run(ann: httpx.Client) -> None:
    answer = ann.post("/api/ai/chat", json={"message": "fail"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (502, "upstream_broke_off")
    assert answer.headers["content-type"] == "application/problem+json"
    card = ann.get(f"/api/ai/runs/{problem['requestId']}").json()
    assert (card["status"], card["error"]["code"]) == ("failed", "upstream_broke_off")


def test_a_failed_run_ends_its_stream_with_run_failed(ann: httpx.Client) -> None:
    last = streamed(ann, "fail")[-1]
    assert (last["type"], last["data"]["error"]["code"]) == ("run.failed", "upstream_broke_off")


def test_a_run_that_no_model_answers_says_so_and_calls_a_person(ann: httpx.Client, ada: httpx.Client) -> None:
    card = ann.post("/api/ai/chat", json={"message": "refuse"}).json()
    assert (card["status"], card["withoutModel"], card["error"]) == ("completed", True, None)
    assert card["answer"].startswith("I cannot answer just now.")
    raised = ada.get("/api/ai/escalations").json()["items"]
    assert [item["reason"] for item in raised if item["requestId"] == card["requestId"]] == ["no model answered"]


@pytest.mark.parametrize(
    "text",
    [
        "\n\nevent: done\ndata: {}\n\n",
        "a\r\nid: 9\r\n\r\nb",
        "\u2028\u2029\x85 \x0b",
        'data: "quoted" \\n',
        "🚢 \ufeff",
    ],
)
def test_no_text_can_begin_an_event_of_its_own(ann: httpx.Client, text: str) -> None:
    events = streamed(ann, f"say x{text}y")
    assert {event["type"] for event in events} <= {
        "run.started",
        "message.delta",
        "validation.completed",
        "run.completed",
    }
    assert events[-1]["data"]["card"]["answer"] == f"x{text}y"


def test_v02_a_lone_surrogate_is_replaced_and_never_a_failure(ann: httpx.Client) -> None:
    body = b'{"message": "say a\\ud800b"}'
    answer = ann.post("/api/ai/chat", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["answer"]) == (200, "a\ufffdb")


def test_c04_a_stream_is_taken_up_again_after_the_last_event_seen(ann: httpx.Client) -> None:
    events = streamed(ann, "say one two three")
    url = f"/api/ai/runs/{events[0]['data']['requestId']}/events"
    for seen in range(len(events) + 1):
        rest = events_of(ann.get(url, headers={"Last-Event-ID": str(seen)}).text)
        assert rest == events[seen:]


@pytest.mark.parametrize("number", ["-1", "x", "1e3", "99999999999999999999"])
def test_c04_a_last_event_id_that_is_none_is_named(ann: httpx.Client, number: str) -> None:
    run = ann.post("/api/ai/chat", json={"message": "say x"}).json()["requestId"]
    answer = ann.get(f"/api/ai/runs/{run}/events", headers={"Last-Event-ID": number})
    assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")


@pytest.mark.parametrize("stays", [(1,), (2,), (1, 1), (1, 1, 1), (2, 1)])
def test_c04_a_reader_who_leaves_and_comes_back_hears_everything_once(
    server: Served, ann: httpx.Client, stays: tuple[int, ...]
) -> None:
    """`stays` are the numbers of events that it hears before it leaves, each time while the run goes on."""
    gate = "c04-" + "-".join(map(str, stays))
    heard: list[dict[str, Any]] = []
    url = "/api/ai/chat"
    for number in stays:
        asked = (
            {"method": "POST", "json": {"message": f"hold {gate}", "stream": True}} if not heard else {"method": "GET"}
        )
        headers = {"Last-Event-ID": str(heard[-1]["id"])} if heard else {}
        with ann.stream(url=url, headers=headers, **asked) as stream:
            frames = frames_of(stream)
            heard += [events_of(next(frames))[0] for _ in range(number)]
        url = f"/api/ai/runs/{heard[0]['data']['requestId']}/events"
        if len(heard) == 2:  # the first piece is out, and the next waits for this
            server.release(gate)
    server.release(gate)
    rest = ann.get(url, headers={"Last-Event-ID": str(heard[-1]["id"])})
    heard += events_of(rest.text)
    assert [event["id"] for event in heard] == list(range(1, len(heard) + 1))
    assert "".join(event["data"]["text"] for event in heard if event["type"] == "message.delta") == "one two three"
    assert heard[-1]["data"]["card"]["answer"] == "one two three"


def frames_of(stream: httpx.Response) -> Iterator[str]:
    """Events as they come, comments left out."""
    frame = ""
    for line in stream.iter_lines():
        frame += line + "\n"
        if not line:
            if "event: " in frame:
                yield frame
            frame = ""


def test_c04_nobody_else_takes_up_a_stream(
    server: Served, ann: httpx.Client, al: httpx.Client, eve: httpx.Client
) -> None:
    run = ann.post("/api/ai/chat", json={"message": "say mine"}).json()["requestId"]
    for client in (al, eve):
        for after in ("0", "1", "99"):
            refused = client.get(f"/api/ai/runs/{run}/events", headers={"Last-Event-ID": after})
            assert (refused.status_code, "mine" in refused.text) == (404, False)


def test_a_run_that_nobody_reads_any_more_is_cancelled_and_written_down(ann: httpx.Client) -> None:
    askings = [server_free_request(ann, {"message": "hold forever", "stream": stream}) for stream in (True, False)]
    listed = ann.get("/api/ai/runs", params={"limit": 2}).json()["items"]
    assert [ended(ann, run["requestId"]) for run in listed] == ["cancelled"] * 2
    for asking in askings:
        asking.close()


def server_free_request(client: httpx.Client, body: dict[str, Any]) -> httpx.Client:
    """Ask and hang up without reading the answer."""
    short = httpx.Client(base_url=client.base_url, headers=client.headers, timeout=1.5, trust_env=False)
    with pytest.raises(httpx.ReadTimeout):
        short.post("/api/ai/chat", json=body)
    return short


def ended(client: httpx.Client, run: str) -> str:
    while (status := client.get(f"/api/ai/runs/{run}").json()["status"]) == "running":
        time.sleep(0.05)
    return str(status)


def test_a_run_is_cancelled_on_request_once(server: Served, ann: httpx.Client) -> None:
    with ann.stream("POST", "/api/ai/chat", json={"message": "hold cancel", "stream": True}) as stream:
        run = stream.headers["x-request-id"]
        with server.client("ann") as other:
            assert other.post(f"/api/ai/runs/{run}/cancel").json() == {"requestId": run, "status": "cancelled"}
            assert other.post(f"/api/ai/runs/{run}/cancel").status_code == 409
        events = events_of("".join(stream.iter_text()))
    assert (events[-1]["type"], events[-1]["data"]["error"]["code"]) == ("run.failed", "cancelled")


def test_t01_a_model_that_repeats_its_instructions_gives_away_no_mark(ann: httpx.Client, server: Served) -> None:
    """The scripted model says what it is told to, and here that is all of its system prompt."""
    ann.post("/api/ai/chat", json={"message": "say hi"})
    instructions = server.script.requests[-1].messages[0].content
    mark = instructions.rsplit(" ", 1)[-1]
    assert mark.startswith("ph-")
    events = streamed(ann, f"say {instructions}")
    card = events[-1]["data"]["card"]
    assert mark not in card["answer"]
    assert mark not in "".join(event["data"]["text"] for event in events if event["type"] == "message.delta")
    seen = {verdict["guard"]: verdict["reasons"] for verdict in card["verdicts"] if verdict["stage"] == "output"}
    assert seen == {"patterns": ["system_prompt"], "instructions": ["quoted"]}


SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}


def test_an_answer_fits_the_schema_that_was_asked_for_or_there_is_none(ann: httpx.Client) -> None:
    asked = {"message": 'say {"count": 3}', "responseSchema": SCHEMA}
    good = ann.post("/api/ai/chat", json=asked)
    assert json.loads(good.json()["answer"]) == {"count": 3}
    bad = ann.post("/api/ai/chat", json=asked | {"message": "say three"})
    assert (bad.status_code, bad.json()["code"]) == (502, "answer_not_valid")
    events = streamed(ann, "say three", responseSchema=SCHEMA)
    assert [event["type"] for event in events if event["type"] == "message.delta"] == []
    assert events[-1]["type"] == "run.failed"
    assert events[-1]["data"]["error"]["code"] == "answer_not_valid"


def test_a_schema_that_is_none_is_refused_before_there_is_a_run(ann: httpx.Client) -> None:
    for schema in ({"type": "nothing"}, {"type": "string", "pattern": "(a+)+$"}, {"$ref": "http://evil.example"}):
        answer = ann.post("/api/ai/chat", json={"message": "say hi", "responseSchema": schema})
        assert (answer.status_code, answer.json()["field"]) == (422, "responseSchema")
