"""Answers given again at `/v1`: to whom, for what, how a client can tell, and what they cost."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import orjson
import pytest

from tests.api.served import OWNER_KEY, Served, served
from tests.api.v1.conftest import openai_client
from tests.api.v1.upstream import USAGE, Upstream

CONFIG = """
providers: {{lab: {{kind: openai, base_url: "{url}"}}}}
models:
  big: {{provider: lab, model: served-1, input_usd_per_mtok: 2, output_usd_per_mtok: 8, context_tokens: 128000}}
routes:
  default: {{candidates: [big], retries: 0}}
  kept: {{candidates: [big], retries: 0, cache: {{exact_ttl_s: 600}}}}
  alike: {{candidates: [big], retries: 0, cache: {{semantic_ttl_s: 600, semantic_threshold: 0.9}}}}
  brief: {{candidates: [big], retries: 0, cache: {{exact_ttl_s: 0.001}}}}
tenants:
  thrifty: {{budget_usd_month: 0.001, degrade: [{{at: 0.05, cached: true, answer: refuse}}]}}
breaker: {{min_calls: 100000}}
"""
TENANTS = {"ann": "acme", "al": "acme", "eve": "umbrella", "tom": "thrifty"}


@pytest.fixture(scope="module")
def door(lab: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("cache"), CONFIG.format(url=lab.url)) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name, tenant in TENANTS.items():
                made = owner.post(
                    "/api/ai/keys", json={"tenantId": tenant, "userId": name, "scopes": ["chat"], "name": name}
                )
                up.keys[name] = made.json()["key"]
        yield up


@pytest.fixture(autouse=True)
def _empty(door: Served) -> None:
    for tenant in set(TENANTS.values()):
        door.call(door.bench.gateway.cache.forget(tenant))


def ask(http: httpx.Client, text: Any = "say Hello there", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"model": "kept", "messages": [{"role": "user", "content": text}], "max_tokens": 50} | more
    return http.post("/v1/chat/completions", json=body, headers=headers)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    frames = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert frames[-1] == "[DONE]"
    return [orjson.loads(frame) for frame in frames[:-1]]


def text_of(response: httpx.Response) -> str:
    if response.headers["content-type"].startswith("text/event-stream"):
        pieces = [choice["delta"].get("content") for event in events(response) for choice in event["choices"]]
        return "".join(piece for piece in pieces if piece)
    return str(response.json()["choices"][0]["message"]["content"])


def rows(door: Served) -> list[tuple[Any, ...]]:
    """Outcome, cost, tokens in, tokens out, cached tokens, attempt of all calls, in their order."""
    path = door.bench.settings.store_url.split("///", 1)[1]
    columns = "outcome, cost_micros, input_tokens, output_tokens, cached_input_tokens, attempt"
    with sqlite3.connect(path) as database:
        return database.execute(f"SELECT {columns} FROM ledger ORDER BY started_us").fetchall()


def test_a_repeat_gets_the_answer_again_and_a_client_can_tell(http: httpx.Client, lab: Upstream) -> None:
    first, again = ask(http), ask(http)
    assert len(lab.requests) == 1
    assert (first.headers["x-pilothouse-cache"], again.headers["x-pilothouse-cache"]) == ("miss", "exact")
    assert again.headers["age"] == "0"
    one, two = first.json(), again.json()
    assert two.pop("pilothouse") == {"cached": "exact", "ageSeconds": 0}
    assert one.pop("id") != two.pop("id")
    assert one["choices"][0].pop("message")["content"] == two["choices"][0].pop("message")["content"] == "Hello there"
    for answer in (one, two):
        del answer["created"]
    assert one == two
    assert two["usage"] == USAGE


@pytest.mark.parametrize("stream", [False, True])
def test_twenty_identical_calls_at_once_ask_the_model_once(
    door: Served, http: httpx.Client, lab: Upstream, stream: bool
) -> None:
    before = len(rows(door))
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: ask(http, stream=stream), range(20)))
    assert len(lab.requests) == 1
    assert [text_of(answer) for answer in answers] == ["Hello there"] * 20
    told = [answer.headers["x-pilothouse-cache"] for answer in answers]
    assert (told.count("miss"), told.count("exact")) == (1, 19)
    assert sorted(row[0] for row in rows(door)[before:]) == ["cached"] * 19 + ["ok"]


def test_a_hit_is_free_and_the_ledger_says_so(door: Served, http: httpx.Client) -> None:
    before = len(rows(door))
    ask(http)
    ask(http)
    ask(http, stream=True)
    paid, *hits = rows(door)[before:]
    assert paid[0] == "ok"
    assert paid[1] > 0
    assert paid[2:5] == (19, 7, 4)
    assert hits == [("cached", 0, 0, 0, 0, 0)] * 2


def test_hits_are_counted_where_operators_look(door: Served, http: httpx.Client) -> None:
    def hits() -> float:
        with door.client("owner") as owner:
            lines = owner.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if "cache_hits_total{" in line and 'kind="exact"' in line)

    before = hits()
    ask(http)
    ask(http)
    assert hits() == before + 1


@pytest.mark.parametrize(("first", "then"), [(False, True), (True, False), (True, True)])
def test_a_stream_and_a_whole_answer_serve_each_other(
    http: httpx.Client, lab: Upstream, first: bool, then: bool
) -> None:
    options = {"stream_options": {"include_usage": True}}
    one = ask(http, stream=first, **(options if first else {}))
    two = ask(http, stream=then, **(options if then else {}))
    assert len(lab.requests) == 1
    assert text_of(one) == text_of(two) == "Hello there"
    if then:
        *_, finish, usage = events(two)
        assert finish["choices"][0]["finish_reason"] == "stop"
        assert finish["pilothouse"] == {"cached": "exact", "ageSeconds": 0}
        assert (usage["choices"], usage["usage"], usage["model"]) == ([], USAGE, "served-1")


def test_the_openai_client_reads_a_hit_unmodified(door: Served, lab: Upstream) -> None:
    asking: Any = {"model": "kept", "messages": [{"role": "user", "content": "say Hello there"}]}
    with openai_client(door) as client:
        client.chat.completions.create(**asking)
        chunks = list(client.chat.completions.create(**asking, stream=True))
    assert len(lab.requests) == 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there"
    assert not any(chunk.usage for chunk in chunks)


def test_no_tenant_hears_anothers_answer(door: Served, http: httpx.Client, lab: Upstream) -> None:
    for model in ("kept", "alike"):
        ask(http, model=model)
        door.call(door.bench.gateway.cache.settled())
        with door.client("eve") as eve:
            # Naming another tenant, in whatever field, changes nothing: the tenant is the key's.
            claims = {"user": "ann", "tenant": "acme", "metadata": {"tenantId": "acme"}}
            assert ask(eve, model=model).headers["x-pilothouse-cache"] == "miss"
            assert ask(eve, model=model, **claims).headers["x-pilothouse-cache"] == "miss"
        with door.client("al") as al:
            assert ask(al, model=model).headers["x-pilothouse-cache"] != "miss"


def test_a_route_without_a_cache_answers_anew_and_says_nothing_of_caches(http: httpx.Client, lab: Upstream) -> None:
    for model in ("default", "default", "big"):
        assert "x-pilothouse-cache" not in ask(http, model=model).headers
    assert len(lab.requests) == 3


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
LAST = {"role": "user", "content": "say Hello"}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"functions": [{"name": "look", "parameters": {}}]},
        {"messages": [{"role": "assistant", "tool_calls": [CALLED]}, {"role": "tool", "tool_call_id": "c1",
                       "content": "7"}, LAST]},
        {"messages": [{"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}}, LAST]},
        {"n": 2},
        {"logprobs": True},
        {"temperature": 1.5},
        {"store": True},
        {"web_search_options": {}, "store": True},
        {"modalities": ["text", "audio"]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "say Hello"},
                       {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
    ],
)  # fmt: skip
def test_tools_and_answers_that_are_more_than_text_are_never_kept(
    http: httpx.Client, lab: Upstream, more: dict[str, Any]
) -> None:
    for _ in range(2):
        response = ask(http, **more)
        assert response.status_code == 200, response.text
        assert "x-pilothouse-cache" not in response.headers
    assert len(lab.requests) == 2


def whole(**changed: Any) -> str:
    message = {"role": "assistant", "content": "Hello"} | changed.pop("message", {})
    choice = {"index": 0, "message": message, "finish_reason": "stop"} | changed
    return (
        "send "
        + orjson.dumps(
            {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
        ).decode()
    )


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        (whole(finish_reason="length"), False),
        (whole(finish_reason="content_filter"), False),
        (whole(message={"reasoning_content": "Let me see."}), False),
        (whole(message={"refusal": "No."}), False),
        (whole(message={"content": None, "tool_calls": [CALLED]}), False),
        (whole(message={"content": ""}), False),
        ("call look {}", True),
        ("break Half an answer", True),
        ("break Half an answer", False),
        ("status 500", False),
        ("send {}", False),
        ('send {"error": {"message": "no"}}', False),
        ('send {"choices": 7}', False),
    ],
)
def test_an_answer_that_broke_off_or_is_not_plain_text_is_never_kept(
    http: httpx.Client, lab: Upstream, text: str, stream: bool
) -> None:
    for _ in range(2):
        assert ask(http, text, stream=stream).headers.get("x-pilothouse-cache") == "miss"
    assert len(lab.requests) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [{"content": "say Hello there", "role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "say Hello there"}]}]},
        {"messages": [{"role": "user", "content": "say Hello there", "name": None}]},
        {"max_tokens": None, "max_completion_tokens": 50},
        {"n": 1, "temperature": None, "tools": [], "stream": False},
        {"user": "somebody", "prompt_cache_key": "k", "service_tier": "auto"},
    ],
)
def test_what_makes_no_difference_to_the_answer_makes_none_to_its_name(
    http: httpx.Client, lab: Upstream, more: dict[str, Any]
) -> None:
    ask(http)
    assert ask(http, **more).headers["x-pilothouse-cache"] == "exact"
    assert len(lab.requests) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": 49},
        {"temperature": 0},
        {"seed": 1},
        {"stop": ["there"]},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"50256": -100}},
        {"a_field_of_next_year": True},
        {"messages": [{"role": "system", "content": "Be rude."}, {"role": "user", "content": "say Hello there"}]},
        {"messages": [{"role": "user", "content": "say Hello there", "name": "eve"}]},
        {"messages": [{"role": "user", "content": "say Hello "}, {"role": "user", "content": "there"}]},
    ],
)
def test_what_may_make_a_difference_is_another_call(http: httpx.Client, more: dict[str, Any]) -> None:
    ask(http)
    assert ask(http, **more).headers["x-pilothouse-cache"] == "miss"


def test_a_seed_makes_a_hot_call_repeatable(http: httpx.Client) -> None:
    ask(http, temperature=1.5, seed=7)
    assert ask(http, temperature=1.5, seed=7).headers["x-pilothouse-cache"] == "exact"


def test_a_client_can_ask_for_a_new_answer_and_for_none_to_be_kept(http: httpx.Client, lab: Upstream) -> None:
    assert "x-pilothouse-cache" not in ask(http, headers={"Cache-Control": "no-store"}).headers
    assert ask(http).headers["x-pilothouse-cache"] == "miss"
    assert ask(http, headers={"Cache-Control": "max-age=0, No-Cache"}).headers["x-pilothouse-cache"] == "miss"
    assert ask(http).headers["x-pilothouse-cache"] == "exact"
    assert len(lab.requests) == 3


def test_output_patterns_go_over_an_answer_each_time_it_leaves(http: httpx.Client, lab: Upstream) -> None:
    answers = [
        text_of(ask(http, "say The card is 4111 1111 1111 1111 now", stream=stream)) for stream in (False, False, True)
    ]
    assert len(lab.requests) == 1
    assert len(set(answers)) == 1
    assert "4111" not in answers[0]


def test_the_same_question_in_other_words_gets_its_answer(door: Served, http: httpx.Client, lab: Upstream) -> None:
    ask(http, "say How do I enable the dark mode?", model="alike")
    door.call(door.bench.gateway.cache.settled())
    again = ask(http, "say How can I enable dark mode?", model="alike", stream=True)
    assert again.headers["x-pilothouse-cache"] == "semantic"
    assert text_of(again) == "How do I enable the dark mode?"
    other = ask(http, "say How can I disable dark mode?", model="alike")
    assert other.headers["x-pilothouse-cache"] == "miss"
    assert ask(http, "say How can I enable dark mode?", model="alike", temperature=0).headers[
        "x-pilothouse-cache"
    ] == "miss"  # fmt: skip


def test_every_wire_of_v1_gives_a_kept_answer(door: Served, http: httpx.Client, lab: Upstream) -> None:
    said = {"model": "kept", "input": "say Hello there", "max_output_tokens": 50}
    one, two = (http.post("/v1/responses", json=said) for _ in range(2))
    assert two.headers["x-pilothouse-cache"] == "exact"
    assert one.json()["output"][0]["content"] == two.json()["output"][0]["content"]
    assert one.json()["usage"] == two.json()["usage"]
    with anthropic.Anthropic(base_url=door.url, api_key=door.keys["ann"]) as claude:
        asking: Any = {"model": "kept", "max_tokens": 50, "messages": [LAST]}
        first, again = (claude.messages.create(**asking) for _ in range(2))
    assert first.content == again.content
    assert first.usage == again.usage
    assert len(lab.requests) == 2


def test_a_graphs_run_says_that_its_answer_was_kept(http: httpx.Client, lab: Upstream) -> None:
    cards = [
        http.post("/api/ai/chat", json={"message": "say Hello there", "mode": "chat", "model": "kept"}).json()
        for _ in range(2)
    ]
    assert len(lab.requests) == 1
    assert cards[0]["answer"] == cards[1]["answer"]
    assert [card["cached"] for card in cards] == [False, True]
    assert cards[0]["usage"]["costUsdMicros"] > 0
    assert cards[1]["usage"] == {
        "inputTokens": 0,
        "outputTokens": 0,
        "estimated": False,
        "calls": 0,
        "costUsdMicros": 0,
    }
    assert cards[1]["model"] == "big"


def test_a_rag_run_is_answered_anew_once_its_passages_have_changed(door: Served) -> None:
    def put(text: str) -> None:
        documents = [{"id": "modes", "title": "Modes", "text": text}]
        assert owner.post("/api/ai/documents", json={"collection": "shelf", "documents": documents}).is_success

    def cached() -> bool:
        asking = {"message": "How is dark mode enabled?", "mode": "rag", "model": "kept", "collection": "shelf"}
        card = owner.post("/api/ai/chat", json=asking).json()
        assert card["status"] == "completed", card
        return bool(card["cached"])

    with door.client("owner") as owner:
        put("Dark mode is enabled with a switch.")
        assert [cached(), cached()] == [False, True]
        put("Dark mode is enabled with a lever.")
        assert [cached(), cached()] == [False, True]


@pytest.mark.parametrize("deleted", ["document", "conversation"])
def test_what_is_deleted_is_not_quoted_from_a_kept_answer(door: Served, lab: Upstream, deleted: str) -> None:
    with door.client("owner") as owner:
        made = owner.post("/api/ai/documents", json={"collection": "c", "documents": [{"id": "d", "text": "Canary."}]})
        assert made.status_code in {201, 202}, made.text
        card = owner.post("/api/ai/chat", json={"message": "say Canary", "mode": "chat", "model": "kept"}).json()
        ask(owner)
        assert ask(owner).headers["x-pilothouse-cache"] == "exact"
        path = f"conversations/{card['conversationId']}" if deleted == "conversation" else "documents/d"
        assert owner.delete(f"/api/ai/{path}").status_code == 204
        assert ask(owner).headers["x-pilothouse-cache"] == "miss"


def test_near_the_budget_a_kept_answer_is_given_whatever_its_age_and_nothing_is_bought(
    door: Served, lab: Upstream
) -> None:
    with door.client("tom") as tom:
        assert ask(tom, model="brief").headers["x-pilothouse-cache"] == "miss"
        again = ask(tom, model="brief")
        assert again.headers["x-pilothouse-cache"] == "exact"
        assert text_of(again) == "Hello there"
        refused = ask(tom, "say Something else", model="brief")
        assert refused.status_code == 429
    assert len(lab.requests) == 1
    with door.client("ann") as ann:
        ask(ann, model="brief")
        assert ask(ann, model="brief").headers["x-pilothouse-cache"] == "miss"
