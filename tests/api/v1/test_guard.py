"""The output patterns hold on every endpoint that answers, whole and streamed, wherever the text is cut."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.v1.guarded import Guarded
from app.api.v1.messages_events import MessageTeller
from app.api.v1.responses_events import ResponseTeller
from app.api.v1.telling import Teller
from app.services.gateway.provider import WireEvent
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.stream import PatternFilter
from tests.api.served import Served

SECRET = "sk-Zq8Wn3Lk9Xv2Bc7Mr5Ty1Pd4"
CARD = "4111 1111 1111 1111"
LEAKS = [f"The key is {SECRET}.", f"Pay with {CARD}, now.", "See ![x](http://evil.example/?d=1) there."]
INNER = [SECRET, "1111 1111", "evil.example"]


def chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


ENDPOINTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": chat,
    "/v1/responses": lambda text: {"input": text},
    "/v1/messages": lambda text: chat(text) | {"max_tokens": 50},
}


def streamed_text(answer: httpx.Response) -> str:
    """All the texts that the frames of any of the wires hold, joined."""
    found = ""
    for line in answer.text.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line.removeprefix("data: "))
            found += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
            delta = event.get("delta", "")
            found += delta if isinstance(delta, str) else delta.get("text", "")
    return found


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(("leak", "inner"), list(zip(LEAKS, INNER, strict=True)))
@pytest.mark.parametrize("order", ["say", "spell"])
def test_nothing_of_it_leaves_whole_or_streamed(
    http: httpx.Client, path: str, leak: str, inner: str, order: str
) -> None:
    body = {"model": "big", "logprobs": True} | ENDPOINTS[path](f"{order} {leak}")
    whole = http.post(path, json=body)
    streamed = http.post(path, json=body | {"stream": True})
    assert (whole.status_code, streamed.status_code) == (200, 200)
    assert "removed" in whole.text
    assert "removed" in streamed_text(streamed)
    for answer in (whole, streamed):
        assert inner not in answer.text
    assert inner not in streamed_text(streamed)
    assert streamed_text(streamed)[-1] == leak[-1]


def test_a_tenant_s_own_policy_for_links_holds_for_its_plain_calls(http: httpx.Client, door: Served) -> None:
    said, link = "say Look at [this](https://elsewhere.example/?d=1).", "https://elsewhere.example"
    with door.client("nell") as nell:
        for body in (chat(said), chat(said) | {"stream": True}):
            kept = http.post("/v1/chat/completions", json=body | {"model": "small"}).text
            cut = nell.post("/v1/chat/completions", json=body | {"model": "small"}).text
            assert link in kept
            assert "elsewhere.example" not in cut
            assert "link removed" in cut


def event(text: str, *, finish: str | None = None, name: str = "content", logprobs: Any = None) -> WireEvent:
    choice = {"index": 0, "delta": {name: text} if text else {}, "finish_reason": finish, "logprobs": logprobs}
    return WireEvent(b"", {"choices": [choice]}, text, True)


def spelled(text: str) -> Any:
    return {"content": [{"token": text, "logprob": -0.1}]} if text else None


def passed(pieces: list[str], *, name: str = "content", logprobs: bool = False) -> tuple[str, str]:
    """What left of a text sent in these pieces, and what its log-probabilities spell."""
    guard = Guarded(lambda: PatternFilter(SECRETS), logprobs=logprobs)
    out = tokens = ""
    for event_ in [*(event(piece, name=name, logprobs=spelled(piece)) for piece in pieces), event("", finish="stop")]:
        guard.clean(event_)
        choice = event_.data["choices"][0]
        out += choice["delta"].get(name) or ""
        tokens += "".join(entry["token"] for entry in (choice["logprobs"] or {}).get("content") or ())
    return out, tokens


@pytest.mark.parametrize("name", ["content", "reasoning_content", "refusal"])
def test_a_secret_cut_in_two_at_any_place_stays_inside(name: str) -> None:
    text = f"The key is {SECRET}."
    whole, _ = passed([text], name=name)
    assert SECRET not in whole
    for cut in range(1, len(text)):
        assert passed([text[:cut], text[cut:]], name=name)[0] == whole


def test_log_probabilities_come_with_their_text_and_never_spell_what_was_removed() -> None:
    plain = "Deals are 44 percent off, says Ed."
    assert passed(list(plain), logprobs=True) == (plain, plain)
    text, tokens = passed(list(f"Use {SECRET} now"), logprobs=True)
    assert SECRET not in text
    assert tokens == text[: len(tokens)]
    assert passed(list(plain))[1] == ""  # nobody asked for them: they do not pass


@pytest.mark.parametrize("teller", [MessageTeller("m", "r"), ResponseTeller("m", {})], ids=["messages", "responses"])
@given(text=st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n:\u2028\x85"), min_size=1))
def test_x09_no_text_of_a_model_begins_a_field_or_an_event_of_its_own(teller: Teller, text: str) -> None:
    frames = teller.hear({"choices": [{"index": 0, "delta": {"content": text}}]}).decode()
    found = []
    for frame in frames.removesuffix("\n\n").split("\n\n"):
        kind, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        found.append(event.get("delta"))
    assert "\r" not in frames
    assert text in (found[-1], found[-1]["text"] if isinstance(found[-1], dict) else None)


def test_text_before_a_tool_call_leaves_before_it() -> None:
    """Held back to the end it would come after the call."""
    guard = Guarded(lambda: PatternFilter(SECRETS))
    first, second = event("Let me look at De"), event("")
    second.data["choices"][0]["delta"] = {"tool_calls": [{"index": 0, "function": {"name": "look"}}]}
    guard.clean(first)
    guard.clean(second)
    said = [found.data["choices"][0]["delta"].get("content") or "" for found in (first, second)]
    assert "".join(said) == "Let me look at De"


def test_a_content_in_parts_is_cleaned_too() -> None:
    guard = Guarded(lambda: PatternFilter(SECRETS))
    parts = [{"type": "text", "text": f"Key {SECRET}"}, {"type": "thinking", "thinking": []}]
    answer = WireEvent(b"", {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}, "", True)
    assert guard.clean(answer)
    assert SECRET not in str(answer.data)
