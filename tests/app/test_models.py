"""Every kind of provider that the configuration file can name, opened as a server opens it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_openai.chat_models._client_utils import _cached_async_httpx_client

from app.config.load import ConfigInvalid, parse
from app.models import open_gateway
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.ports import OpenDesk
from app.services.gateway.scripted import SCRIPTED, ScriptedProvider
from app.services.retrieval.embedder import MiniLmEmbedder
from app.settings import Settings
from graphs.errors import Invalid
from graphs.types import Message, ModelRequest
from tests import fake_anthropic, fake_openai
from tests.services.gateway.test_embedding_openai import row, said

ASK = (Message("user", "Say hello"),)
KEYS = {"LAB_KEY": "sk-lab"}
MODELS = """
providers:
  lab: {{kind: openai, base_url: "{openai}/v1", api_key_env: LAB_KEY}}
  claude: {{kind: anthropic, base_url: "{anthropic}", api_key_env: LAB_KEY}}
  other: {{kind: langchain, chat_model: "langchain_openai:ChatOpenAI", base_url: "{openai}/v1", api_key_env: LAB_KEY}}
  quotes: {{kind: extractive}}
  drill: {{kind: scripted, arguments: {{answer: Hello from the script}}}}
models:
  big: {{provider: lab, model: gpt, input_usd_per_mtok: 2, output_usd_per_mtok: 8, max_output_tokens: 100}}
  wise: {{provider: claude, model: claude-x, input_usd_per_mtok: 3, output_usd_per_mtok: 15}}
  chained: {{provider: other, model: gpt, input_usd_per_mtok: 1, output_usd_per_mtok: 1}}
  quoted: {{provider: quotes, model: extractive}}
  spoken: {{provider: drill, model: scripted}}
  vectors: {{provider: lab, model: embed-x, kind: embedding, dimensions: 2, input_usd_per_mtok: 0.02}}
"""


@asynccontextmanager
async def opened(
    text: str, embedder: MiniLmEmbedder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ModelGateway]:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    own: dict[str, Any] = {SCRIPTED.name: ScriptedProvider(lambda _: "own")}
    gateway = await open_gateway(Settings(home=home), parse(text), embedder, OpenDesk(), providers=own)
    try:
        yield gateway
    finally:
        await gateway.close()


async def test_every_kind_of_provider_answers_under_its_name(
    embedder: MiniLmEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = fake_openai.sends(fake_openai.events(*fake_openai.GREETING))
    speaks = fake_openai.sends(fake_anthropic.events(*fake_anthropic.GREETING))
    async with fake_openai.fake_openai(talks) as lab, fake_anthropic.fake_anthropic(speaks) as claude:
        text = MODELS.format(openai=lab.url, anthropic=claude.url)
        async with opened(text, embedder, tmp_path, monkeypatch) as gateway:
            answers = {
                name: (await gateway.complete(ModelRequest(ASK, model=name))).text
                for name in ("big", "wise", "chained", "spoken")
            }
            langchain = gateway.router.targets["chained"].provider
            await langchain._model.root_async_client.close()  # type: ignore[attr-defined]
            _cached_async_httpx_client.cache_clear()  # or a test that is given the same port gets the closed one
            assert "vectors" not in {info.name for info in gateway.models}
    hello = "Hello, world"
    assert answers == {"big": hello, "wise": hello, "chained": hello, "spoken": "Hello from the script"}
    assert [body["model"] for body in (*lab.requests, *claude.requests)] == ["gpt", "gpt", "claude-x"]
    assert {headers["Authorization"] for headers in lab.headers} == {"Bearer sk-lab"}
    assert claude.headers[0]["x-api-key"] == "sk-lab"


async def test_an_embedding_model_of_the_file_stands_beside_the_embedded_one(
    embedder: MiniLmEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_openai.fake_openai(fake_openai.sends_json(said(row(0, 1.0, 2.0)))) as lab:
        text = MODELS.format(openai=lab.url, anthropic=lab.url)
        async with opened(text, embedder, tmp_path, monkeypatch) as gateway:
            assert (await gateway.embed(["a"], "vectors")).vectors == ((1.0, 2.0),)
            assert len((await gateway.embed(["a"])).vectors[0]) == embedder.dimensions
            with pytest.raises(Invalid, match="does not embed"):
                await gateway.embed(["a"], "big")
            with pytest.raises(Invalid, match="does not answer"):
                await gateway.complete(ModelRequest(ASK, model="vectors"))
    assert lab.requests == [{"model": "embed-x", "input": ["a"], "dimensions": 2}]


@pytest.mark.parametrize("kind", ["anthropic", "extractive", "scripted"])
def test_a_kind_that_embeds_nothing_is_refused_with_its_line(kind: str) -> None:
    text = f"providers: {{p: {{kind: {kind}}}}}\nmodels:\n  v: {{provider: p, model: v, kind: embedding}}\n"
    with pytest.raises(ConfigInvalid, match=rf"line 3: models\.v\.kind: a provider of kind {kind} embeds nothing"):
        parse(text)


def test_the_embedded_embedding_model_can_be_granted_and_not_be_routed_to() -> None:
    granted = parse("tenants: {acme: {models: [all-minilm-l6-v2]}}")
    assert granted.tenants["acme"].models == ("all-minilm-l6-v2",)
    with pytest.raises(ConfigInvalid):
        parse("routes: {default: {candidates: [all-minilm-l6-v2]}}")


async def test_a_configured_model_has_no_deadline_nearer_than_its_routes_may_give_it(
    embedder: MiniLmEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9"
    async with opened(MODELS.format(openai=nowhere, anthropic=nowhere), embedder, tmp_path, monkeypatch) as gateway:
        for name in ("big", "wise", "vectors"):
            provider: Any = gateway.router.targets[name].provider
            kept = provider._server.timeouts
            assert min(kept.first_token_s, kept.between_tokens_s, kept.total_s) == 3_600  # the most that a route takes
            assert kept.connect_s == 5
