"""One served app for all tests of `/v1`, over a model server that does as it is told."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from app.services.breaker import Breaker, BreakerPolicy
from tests.api.served import OWNER_KEY, Served, served
from tests.api.v1.upstream import Upstream, upstream

CONFIG = """
providers: {{lab: {{kind: openai, base_url: "{url}"}}}}
models:
  big: {{provider: lab, model: served-1, input_usd_per_mtok: 2, output_usd_per_mtok: 8, context_tokens: 128000}}
  small: {{provider: lab, model: served-2, input_usd_per_mtok: 1, output_usd_per_mtok: 4, context_tokens: 4096}}
  vectors: {{provider: lab, model: embed-1, kind: embedding, input_usd_per_mtok: 0.1}}
routes:
  default: {{candidates: [big], retries: 0, timeout_s: 20}}
  either: {{candidates: [big, small], retries: 0, timeout_s: 20}}
  goes_on: {{candidates: [big, small], retries: 0, timeout_s: 20, on_broken_stream: continue}}
tenants:
  poor: {{requests_per_minute: 2}}
  narrow: {{models: [small], budget_usd_month: 50}}
answers: {{tenants: {{narrow: {{links: text}}}}}}
limits: {{max_n: 8, max_output_tokens: 32768}}
"""
PEOPLE = {
    "ann": ("acme", ["chat"]),
    "paul": ("poor", ["chat"]),
    "nell": ("narrow", ["chat"]),
    "reader": ("acme", ["runs"]),
}


@pytest.fixture(scope="package")
def lab() -> Iterator[Upstream]:
    with upstream() as up:
        yield up


@pytest.fixture(scope="package")
def door(lab: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("v1"), CONFIG.format(url=lab.url)) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name, (tenant, scopes) in PEOPLE.items():
                made = owner.post(
                    "/api/ai/keys", json={"tenantId": tenant, "userId": name, "scopes": scopes, "name": name}
                )
                assert made.status_code == 201, made.text
                up.keys[name] = made.json()["key"]
        yield up


@pytest.fixture(autouse=True)
def _fresh(lab: Upstream, door: Served) -> None:
    """What one test made fail must not answer for the next."""
    lab.forget()
    for target in door.bench.gateway.router.targets.values():
        target.breaker = Breaker(BreakerPolicy(min_calls=100_000))


@pytest.fixture
def http(door: Served) -> Iterator[httpx.Client]:
    with door.client("ann") as client:
        yield client


def openai_client(door: Served, who: str = "ann", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=door.url + "/v1", api_key=door.keys[who], **options)


@pytest.fixture
def client(door: Served) -> Iterator[openai.OpenAI]:
    with openai_client(door) as made:
        yield made


@pytest.fixture
def claude(door: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=door.url, api_key=door.keys["ann"]) as made:
        yield made
