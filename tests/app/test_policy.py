"""Who words a search and who reads again: the configuration's say, the caller's, and what the model can do."""

from typing import Any

import pytest

from app.config.load import ConfigInvalid, parse
from app.config.schema import Config
from app.policy import policy_of, rerankers
from app.records import SearchWish
from app.services.gateway.embedding import embedding_info
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.meter import MeteredGateway
from app.services.gateway.provider import Reranked
from app.services.gateway.rerank import Rerankers
from app.services.gateway.scripted import SCRIPTED, ScriptedProvider
from app.telemetry.spans import RunTrace
from graphs.errors import Invalid, UpstreamError
from graphs.policy import RetrievalPolicy
from graphs.types import Message, ModelInfo, ModelRequest, Usage

FILE = """
providers:
  place: {kind: rerank, base_url: "http://127.0.0.1:9/v1"}
models:
  bge: {provider: place, model: bge-reranker, kind: rerank, input_usd_per_mtok: 0.02}
routes:
  reading: {candidates: [bge], timeout_s: 2}
retrieval:
  rerank: reading
  collections:
    notes: {variants: 3, rerank: none}
"""
EMBEDDED = ModelInfo("smollm2-135m-instruct", "1", "llamacpp", 2_048, 512, native_tools=False)


class Longest(Rerankers):
    """Prefers long texts."""

    def count_tokens(self, text: str) -> int:
        return len(text)

    async def rerank(self, question: str, texts: Any) -> Reranked:
        return Reranked(tuple(len(text) / 100 for text in texts), self.info.name, Usage(7), "v1")

    async def close(self) -> None:
        return None


def metered(info: ModelInfo = SCRIPTED, script: Any = ("hi",), **given: Any) -> MeteredGateway:
    reader = Longest(embedding_info("reading", "test", 512))
    gateway = ModelGateway.of({info.name: ScriptedProvider(script, info), "reading": reader}, default=info.name)
    return MeteredGateway(gateway, RunTrace("test"), **given)


@pytest.fixture
def config() -> Config:
    return parse(FILE, {})


def test_a_collections_own_say_goes_before_the_general_one_and_the_callers_before_both(config: Config) -> None:
    door = metered()
    assert policy_of(config.retrieval, "other", door) == RetrievalPolicy("model", rerank="reading")
    assert policy_of(config.retrieval, "notes", door) == RetrievalPolicy("model", variants=3)
    wish = SearchWish(rewrite="off", variants=0, fusion="rrf", rerank="reading")
    assert policy_of(config.retrieval, "notes", door, wish) == RetrievalPolicy("off", 0, "rrf", "reading")


def test_the_embedded_models_word_nothing_and_say_so_where_it_was_wished_for(config: Config) -> None:
    policy = policy_of(config.retrieval, "notes", metered(EMBEDDED))
    assert (policy.rewrite, policy.variants) == ("words", 0)
    assert "embedded" in policy.no_variants
    assert policy_of(config.retrieval, "other", metered(EMBEDDED)).no_variants == ""


@pytest.mark.parametrize("name", ["nobody", SCRIPTED.name])
def test_a_re_ranker_that_is_none_is_named(config: Config, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        policy_of(config.retrieval, None, metered(), SearchWish(rerank=name))
    assert caught.value.field == "rerank"


async def test_re_ranking_is_on_the_runs_bill() -> None:
    door = metered()
    assert await rerankers(door)("reading").scores("which", ["one", "three"]) == [0.03, 0.05]
    (call,) = door.calls
    assert (call.task, call.model, call.usage) == ("rerank", "reading", Usage(7))
    assert door.answered_by is None


async def test_no_safe_answer_stands_in_for_a_question() -> None:
    door = metered(script=(UpstreamError("away"),), safe_answer="I cannot answer just now.")
    with pytest.raises(UpstreamError):
        await door.complete(ModelRequest((Message("user", "reword"),), task="rewrite"))
    assert door.failed_over is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("rerank: reading", "rerank: nobody", "retrieval.rerank"),
        ("variants: 3", "variants: 6", "retrieval.collections.notes.variants"),
        ("kind: rerank, base_url", "kind: anthropic, base_url", "models.bge.kind"),
        (
            "  bge: {",
            "  maxsim: {provider: place, model: m, kind: rerank, input_usd_per_mtok: 0}\n  bge: {",
            "models.maxsim",
        ),
    ],
)
def test_a_file_that_re_ranks_by_nobody_is_refused_where_it_says_so(old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        parse(FILE.replace(old, new, 1), {})
    assert told in [fault.path for fault in caught.value.faults]
