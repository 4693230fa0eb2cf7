"""Limits over HTTP, at both doors: rates, places, budgets and what the ladder makes of them."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.services.gateway.extractive import ExtractiveAnswerer
from app.services.retrieval.embedder import MiniLmEmbedder
from tests.api.served import OWNER_KEY, Served, served

# An answer has some 80 tokens of at most 100: under 0.01 USD on big, a tenth of it on small.
CONFIG = """
providers: {lab: {kind: scripted, arguments: {answer: "ANSWER"}}}
models:
  big: {provider: lab, model: x, input_usd_per_mtok: 0, output_usd_per_mtok: 100, max_output_tokens: 100}
  small: {provider: lab, model: y, input_usd_per_mtok: 0, output_usd_per_mtok: 10, max_output_tokens: 100}
routes:
  default: {candidates: [big]}
  cheap: {candidates: [small]}
  proven: {candidates: [small], min_quality: 0.6}
tenants:
  rated: {requests_per_minute: 3}
  narrow: {concurrent_runs: 1}
  laddered:
    budget_usd_month: 0.02
    models: [big, small]
    degrade: [{at: 0.3, route: cheap}, {at: 1.0, answer: extractive}]
  broke: {budget_usd_month: 0, degrade: [{at: 0.0, answer: extractive}], models: [big]}
  stuck: {budget_usd_month: 0.001, degrade: [{at: 1.0, answer: extractive}]}
  refused: {budget_usd_month: 0}
  hasty: {budget_usd_month: 1, degrade: [{at: 0.0, route: proven}]}
  short: {budget_usd_month: 1, degrade: [{at: 0.0, route: cheap, context_tokens: 300}]}
""".replace("ANSWER", "word " * 80)
TENANTS = ("rated", "narrow", "laddered", "broke", "stuck", "refused", "hasty", "short")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, embedder: MiniLmEmbedder) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("limits"), CONFIG, [ExtractiveAnswerer(embedder)]) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for tenant in TENANTS:
                made = owner.post(
                    "/api/ai/keys", json={"tenantId": tenant, "userId": "u", "scopes": ["chat", "runs"], "name": ""}
                )
                up.keys[tenant] = made.json()["key"]
        yield up


def ask(client: httpx.Client, message: str = "How is a key revoked?", **more: Any) -> httpx.Response:
    return client.post("/api/ai/chat", json={"message": message, **more})


def complete(client: httpx.Client, **more: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, **more}
    return client.post("/v1/chat/completions", json=body)


def test_both_doors_draw_on_one_rate_and_say_how_it_stands(server: Served) -> None:
    with server.client("rated") as client:
        first = ask(client)
        assert (first.status_code, first.headers["ratelimit-remaining"]) == (200, "2")
        second = complete(client)
        assert (second.status_code, second.headers["ratelimit-remaining"]) == (200, "1")
        third = complete(client, model="pilothouse/chat")  # a run behind /v1 is one request, not two
        assert (third.status_code, third.headers["ratelimit-remaining"]) == (200, "0")
        for refused in (ask(client), complete(client)):
            assert refused.status_code == 429
            assert 0 < int(refused.headers["retry-after"]) <= 61
            assert refused.headers["ratelimit"].startswith('"tenant-requests";r=0;t=')


def test_one_place_serves_one_after_the_other_and_a_run_behind_v1_takes_one(server: Served) -> None:
    def call(number: int) -> int:
        with server.client("narrow") as client:
            return (complete(client, model="pilothouse/chat") if number % 2 else ask(client)).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(4))) == [200] * 4
    assert server.bench.desk.places.running == 0


def test_the_ladder_goes_down_step_by_step_and_the_card_says_so(server: Served) -> None:
    with server.client("laddered") as client:
        seen = [ask(client, "How is a key revoked?", mode="rag").json() for _ in range(30)]
    models = [card["model"] for card in seen]
    assert models[0] == "big"
    assert set(models) == {"big", "small", "extractive"}
    assert models == sorted(models, key=["big", "small", "extractive"].index)
    assert seen[0]["degraded"] == ""
    assert "route cheap" in seen[models.index("small")]["degraded"]
    last = seen[-1]
    assert ("answer: extractive" in last["degraded"], last["usage"]["costUsdMicros"]) == (True, 0)
    assert last["citations"]
    with server.client("owner") as owner:
        usage = owner.get("/api/ai/usage", params={"groupBy": "tenant"}).json()
    spent = {item["tenant"]: item["costUsdMicros"] for item in usage["items"]}
    assert spent["laddered"] == sum(card["usage"]["costUsdMicros"] for card in seen) <= 20_000


def test_an_exhausted_budget_still_quotes_the_sources_and_politely_refuses_the_rest(server: Served) -> None:
    with server.client("broke") as client:
        quoted = ask(client, mode="rag").json()
        assert (quoted["model"], quoted["status"]) == ("extractive", "completed")
        refused = ask(client, mode="chat")
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exhausted")
        assert int(refused.headers["retry-after"]) > 0
        direct = complete(client, model="extractive")
        assert direct.status_code in {403, 429}  # the ladder grants it; its own list does not


def test_a_budget_that_cannot_cover_the_call_takes_the_last_step_before_it_is_spent(server: Served) -> None:
    with server.client("stuck") as client:
        card = ask(client, mode="rag").json()
        assert card["model"] == "extractive"
        assert "answer: extractive" in card["degraded"]


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_ladder_an_exhausted_budget_is_429_until_next_month(server: Served, stream: bool) -> None:
    with server.client("refused") as client:
        refused = complete(client, stream=stream)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "quota_exhausted"
        assert int(refused.headers["retry-after"]) > 0


def test_the_ladder_reaches_v1_which_says_so_and_shortens_nobodys_messages(server: Served) -> None:
    with server.client("short") as client:
        answer = complete(client)
        assert (answer.status_code, answer.json()["model"]) == (200, "small")
        assert answer.headers["x-pilothouse-degraded"].startswith("from 0% of the budget: route cheap")
        long = complete(client, messages=[{"role": "user", "content": "word " * 2_000}])
        assert (long.status_code, long.json()["error"]["code"]) == (429, "quota_exhausted")
        assert "300 tokens" in long.json()["error"]["message"]


def test_a_step_to_a_route_whose_models_nobody_has_measured_is_not_taken_and_says_so(server: Served) -> None:
    with server.client("hasty") as client:
        card = ask(client).json()
        assert (card["status"], card["model"]) == ("completed", "big")
        assert "route proven (not taken" in card["degraded"]
        answer = complete(client)
        assert (answer.status_code, answer.json()["model"]) == (200, "big")
        assert "not taken" in answer.headers["x-pilothouse-degraded"]
        scores = server.bench.settings.home / "scorecard.json"
        scores.write_text('{"models": {"small": {"chat": {"quality": 0.7, "n": 40}}}}')
        try:
            for _ in range(100):
                if (model := complete(client).json()["model"]) == "small":
                    break
                time.sleep(0.05)
        finally:
            scores.unlink()
    assert model == "small"


def test_a_switched_off_tenant_is_refused_at_both_doors_at_once(server: Served) -> None:
    with server.client("owner") as owner, server.client("narrow") as client:
        off = owner.put("/api/ai/switches/tenant/narrow", json={"reason": "it runs away"})
        assert off.status_code in {200, 201, 204}, off.text
        for refused in (ask(client), complete(client)):
            assert refused.status_code == 403
            assert "it runs away" in refused.text
        assert owner.delete("/api/ai/switches/tenant/narrow").status_code in {200, 204}
        assert complete(client).status_code == 200


def test_every_place_and_reservation_is_given_back(server: Served) -> None:
    desk = server.bench.desk
    server.call(asyncio.sleep(0))
    assert (desk.places.running, desk.places.waiting, desk.places.by_tenant()) == (0, 0, {})
