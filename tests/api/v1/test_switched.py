"""A model that is switched off while it works: its calls go on with the next candidate as far as that is honest."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import pytest

from tests.api.served import Served
from tests.api.v1.test_leaving import outcomes
from tests.api.v1.upstream import Upstream


@pytest.fixture
def off(door: Served) -> Iterator[Any]:
    """Switches `big` off; it is on again after the test."""
    with door.client("owner") as owner:
        yield lambda: owner.put("/api/ai/switches/model/big", json={"reason": "it costs too much"}).raise_for_status()
        owner.delete("/api/ai/switches/model/big")


def asking(http: httpx.Client, route: str, text: str, feature: str, *, stream: bool) -> "Future[httpx.Response]":
    """The answer, which comes meanwhile."""
    body = {"model": route, "messages": [{"role": "user", "content": text}], "stream": stream}
    answer: Future[httpx.Response] = Future()

    def ask() -> None:
        answer.set_result(http.post("/v1/chat/completions", json=body, headers={"X-Pilothouse-Feature": feature}))

    threading.Thread(target=ask).start()
    return answer


def frames(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.text.splitlines() if line]


@pytest.mark.parametrize("stream", [False, True])
def test_asi10_a_call_that_has_said_nothing_yet_goes_to_the_next_candidate(
    door: Served, http: httpx.Client, lab: Upstream, off: Any, stream: bool
) -> None:
    feature = f"switched-{stream}"
    asked = asking(http, "either", "wait served-1", feature, stream=stream)
    assert lab.asked.wait(20)
    off()
    answer = asked.result(20)
    assert answer.status_code == 200
    assert "served-1" in answer.text  # as the other model says
    assert [request["model"] for request in lab.requests] == ["served-1", "served-2"]
    assert lab.left.wait(20), "the upstream call of the model that is off goes on"
    booked = outcomes(door, feature)
    assert booked.keys() == {"failed", "ok"}
    assert booked["failed"][1] > 0, "the prompt was being read"


def test_asi10_an_answer_of_which_something_has_left_ends_where_its_route_says_nothing_else(
    http: httpx.Client, lab: Upstream, off: Any
) -> None:
    asked = asking(http, "either", "hold served-1", "switched-half", stream=True)
    assert lab.asked.wait(20)
    off()
    told = frames(asked.result(20))
    assert json.loads(told[-1])["error"]["code"] == "switched_off"
    assert [request["model"] for request in lab.requests] == ["served-1"]


def test_asi10_it_is_gone_on_with_and_the_place_marked_where_its_route_says_so(
    http: httpx.Client, lab: Upstream, off: Any
) -> None:
    asked = asking(http, "goes_on", "hold served-1", "switched-on", stream=True)
    assert lab.asked.wait(20)
    off()
    told = frames(asked.result(20))
    assert told[-1] == "[DONE]"
    assert [json.loads(frame)["pilothouse"] for frame in told[:-1] if "pilothouse" in frame] == [
        {"continuedBy": "small"}
    ]


def test_a_call_after_the_switch_is_told_its_reason_at_every_door(http: httpx.Client, lab: Upstream, off: Any) -> None:
    off()
    told = "big is switched off: it costs too much"
    chat = {"model": "big", "messages": [{"role": "user", "content": "hello"}]}
    call = http.post("/v1/chat/completions", json=chat)
    assert (call.status_code, call.json()["error"]["code"]) == (403, "switched_off"), call.text
    assert call.json()["error"]["message"] == told
    run = http.post("/api/ai/chat", json={"message": "hello", "mode": "chat", "model": "big"})
    assert (run.status_code, run.json()["code"], run.json()["detail"]) == (403, "switched_off", told)
    assert lab.requests == []


def test_asi10_a_call_of_that_model_alone_is_refused(http: httpx.Client, lab: Upstream, off: Any) -> None:
    asked = asking(http, "big", "wait served-1", "switched-alone", stream=False)
    assert lab.asked.wait(20)
    off()
    answer = asked.result(20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "switched_off")
