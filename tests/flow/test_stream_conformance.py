"""Every way an answer leaves gives what the output patterns make of its whole text, wherever the model's pieces end.

One answer holds each leak once for every place it can be cut at; a piece ends there. Long leaks are cut at some places.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from websockets.sync.client import connect

from app import workbench
from app.console.turn import Turn
from app.records import RunEvent
from app.services.gateway.scripted import SCRIPTED, Say, ScriptedProvider
from app.services.guardrails.instructions import mark_of, mark_pattern
from app.services.guardrails.markup import markup_patterns
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.stream import PatternFilter
from graphs.types import ModelRequest
from tests.api.served import OWNER_KEY, Served, served
from tests.api.v1.upstream import Upstream, upstream
from tests.services.guardrails.leaks import LEAKS

MARK = mark_of("the secret of a test's installation")
PATTERNS = (*SECRETS, *markup_patterns(frozenset()), mark_pattern(MARK))
CUTS = 24  # a leak of more characters is cut at so many places, spread over it; tests/services/guardrails has them all
QUESTION = "Say it all."
SCRIPTED_NAME = "smollm2-135m-instruct"  # a name that routes may lead to without declaring it
CONFIG = """
providers: {{lab: {{kind: openai, base_url: "{url}"}}}}
models:
  big: {{provider: lab, model: served-1, input_usd_per_mtok: 2, output_usd_per_mtok: 8, context_tokens: 1000000}}
routes: {{default: {{candidates: [smollm2-135m-instruct]}}}}
breaker: {{min_calls: 100000}}
limits: {{run_tokens: 10000000}}
"""
BEGUN = {  # what only begins like a leak must come out to the last character
    "a card's beginning": ("4111 1111 1111", ""),
    "a key's beginning": ("sk-proj-Ab3", ""),
    "a tag's beginning": ("a < b and <b", ""),
    "an image's beginning": ("wow ![chart](https://evil", ""),
}
EVERYTHING = {**LEAKS, "the prompts' mark": (MARK, MARK), **BEGUN}


def cuts(text: str) -> list[int]:
    return list(range(1, len(text), -(-len(text) // CUTS)))


def head(name: str, cut: int) -> str:
    return f"\n\u00a7{list(EVERYTHING).index(name)}.{cut}\u00a7\n"


CASES = [(name, cut) for name, (text, _) in EVERYTHING.items() for cut in cuts(text)]
PIECES = [
    piece for name, cut in CASES for piece in (head(name, cut) + EVERYTHING[name][0][:cut], EVERYTHING[name][0][cut:])
]


@cache
def whole(text: str) -> str:
    applied = PatternFilter(PATTERNS)
    return applied.feed(text) + applied.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Upstream]:
    with upstream() as up:
        yield up


@pytest.fixture(scope="module")
def server(lab: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    def say(request: ModelRequest) -> Say:
        return Say(pieces=tuple(PIECES))

    config = CONFIG.format(url=lab.url)
    model = ScriptedProvider(say, replace(SCRIPTED, name=SCRIPTED_NAME))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "mark_of", lambda secret: MARK)
        with served(tmp_path_factory.mktemp("conform"), config, [model]) as up:
            up.keys["owner"] = OWNER_KEY
            yield up


def data_of(text: str) -> Iterator[dict[str, Any]]:
    for line in text.split("\n"):
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def chat_events(server: Served) -> list[RunEvent]:
    """A run's events as the stream sends them."""
    with server.client("owner") as client:
        answer = client.post("/api/ai/chat", json={"message": QUESTION, "stream": True})
    frames = [frame.split("\n") for frame in answer.text.split("\n\n") if frame]
    return [
        RunEvent(int(number[4:]), kind[7:], json.loads(data[6:]))
        for number, kind, data in (lines for lines in frames if lines[0].startswith("id: "))
    ]


def said(events: list[RunEvent]) -> str:
    return "".join(event.data["text"] for event in events if event.type == "message.delta")


def chat_json(server: Served) -> str:
    with server.client("owner") as client:
        return str(client.post("/api/ai/chat", json={"message": QUESTION}).json()["answer"])


def chat_stream(server: Served) -> str:
    events = chat_events(server)
    assert said(events) == events[-1].data["card"]["answer"]
    return said(events)


def chat_again(server: Served) -> str:
    run_id = chat_events(server)[0].data["requestId"]
    with server.client("owner") as client:
        found = client.get(f"/api/ai/runs/{run_id}/events").text
    return "".join(event.get("text", "") for event in data_of(found))


def chat_socket(server: Served) -> str:
    headers, url = {"X-API-Key": OWNER_KEY}, server.url.replace("http", "ws", 1) + "/api/ai/chat/ws"
    text = ""
    with connect(url, additional_headers=headers, proxy=None) as socket:
        socket.send(json.dumps({"type": "chat", "message": QUESTION}))
        while (event := json.loads(socket.recv(timeout=60)))["type"] != "run.completed":
            text += event["data"].get("text", "")
    assert event["data"]["card"]["answer"] == text
    return text


def console(server: Served) -> str:
    """What the console's chat draws from: the text as it comes, then the card's."""
    turn = Turn(QUESTION, "chat")
    events = chat_events(server)
    for event in events[:-1]:
        turn.take(event)
    text = turn.text
    turn.take(events[-1])
    assert turn.card is not None
    assert turn.card.answer == text
    return text


def completion(server: Served, model: str, content: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    with server.client("owner") as client:
        return str(client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"])


def completion_stream(server: Served, model: str, content: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": content}], "stream": True}
    with server.client("owner") as client:
        answer = client.post("/v1/chat/completions", json=body)
    return "".join(
        choice["delta"].get("content") or "" for event in data_of(answer.text) for choice in event.get("choices", ())
    )


def response(server: Served, model: str, content: str) -> str:
    with server.client("owner") as client:
        answer = client.post("/v1/responses", json={"model": model, "input": content}).json()
    return "".join(part["text"] for item in answer["output"] for part in item["content"])


def response_stream(server: Served, model: str, content: str) -> str:
    with server.client("owner") as client:
        answer = client.post("/v1/responses", json={"model": model, "input": content, "stream": True})
    events = list(data_of(answer.text))
    (done,) = [event["text"] for event in events if event["type"] == "response.output_text.done"]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == done
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert text == done
    return text


def message(server: Served, model: str, content: str) -> str:
    body = {"model": model, "max_tokens": 2_000, "messages": [{"role": "user", "content": content}]}
    with server.client("owner") as client:
        return "".join(block["text"] for block in client.post("/v1/messages", json=body).json()["content"])


def message_stream(server: Served, model: str, content: str) -> str:
    body = {"model": model, "max_tokens": 2_000, "stream": True, "messages": [{"role": "user", "content": content}]}
    with server.client("owner") as client:
        answer = client.post("/v1/messages", json=body)
    return "".join(event["delta"].get("text", "") for event in data_of(answer.text) if "delta" in event)


RUNS: Mapping[str, Callable[[Served], str]] = {
    "chat, JSON": chat_json,
    "chat, server-sent events": chat_stream,
    "chat, events taken up again": chat_again,
    "chat, WebSocket": chat_socket,
    "console": console,
}
WIRES = [completion, completion_stream, response, response_stream, message, message_stream]
MODELS = {  # how the model is reached, and what makes it say all the pieces
    "forwarded": ("big", f"cut {json.dumps(PIECES)}"),
    "translated": (SCRIPTED_NAME, QUESTION),
    "graph": ("pilothouse/chat", QUESTION),
}


def expect_the_same(answer: str) -> None:
    """As the whole text's; the first case that differs is named."""
    parts = re.split("\n\u00a7[\\d.]+\u00a7\n", answer)[1:]
    for (name, cut), found in zip(CASES, parts, strict=True):
        text, inner = EVERYTHING[name]
        assert found == whole(text), (name, cut)
        assert not inner or inner not in found
    assert answer == whole("".join(PIECES))


@pytest.mark.parametrize("path", RUNS)
def test_t01_a_run_lets_out_what_its_whole_text_would(server: Served, path: str) -> None:
    expect_the_same(RUNS[path](server))


@pytest.mark.parametrize(
    ("wire", "model"),
    [(wire, model) for wire in WIRES for model in MODELS if model != "translated" or "completion" in wire.__name__],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_t01_a_wire_of_v1_lets_out_what_its_whole_text_would(
    server: Served, wire: Callable[[Served, str, str], str], model: str
) -> None:
    expect_the_same(wire(server, *MODELS[model]))
