"""What every Retriever promises; run on each implementation."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.retrieval.memory import MemoryRetriever
from app.services.retrieval.retriever import TenantRetriever
from app.telemetry.spans import RunTrace
from graphs.context import Retriever
from graphs.errors import Invalid, Missing
from graphs.types import Passage
from tests.services.retrieval.entries import doc

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = {
    "keys": ("Keys", "Rotate the owner key with PILOTHOUSE_OWNER_KEY.", {"lang": "en", "level": 1}),
    "quota": ("Quota", "A tenant over its budget gets quota_exhausted.", {"lang": "en", "level": 2}),
    "schluessel": ("Schlüssel", "Der key wird jährlich erneuert.", {"lang": "de", "level": 1}),
}


@pytest_asyncio.fixture(params=["lance", "memory"], scope="module", loop_scope="module")
async def retriever(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Retriever]:
    if request.param == "memory":
        passages = [
            Passage(f"{id_}-0", id_, title, text, 0, len(text), 0.0, "handbook", metadata=metadata)
            for id_, (title, text, metadata) in TEXTS.items()
        ]
        yield MemoryRetriever({"handbook": passages})
        return
    embedder = MiniLmEmbedder()
    library = await Library.open(tmp_path_factory.mktemp("lance"), embedder)
    entries = [await doc(embedder, id_, text, title, **metadata) for id_, (title, text, metadata) in TEXTS.items()]
    await library.replace("_shared", "handbook", entries)
    trace = RunTrace("run")
    yield TenantRetriever(library, "acme", trace)
    await library.close()
    embedder.close()


async def test_the_best_passage_comes_first(retriever: Retriever) -> None:
    found = await retriever.search("PILOTHOUSE_OWNER_KEY")
    assert found.passages[0].document_id == "keys"
    scores = [passage.score for passage in found.passages]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


async def test_an_answer_names_index_version_and_embedder(retriever: Retriever) -> None:
    found = await retriever.search("key")
    assert found.index_version.startswith("handbook@")
    assert found.embedder


async def test_passages_carry_text_offsets_and_metadata(retriever: Retriever) -> None:
    passage = (await retriever.search("quota_exhausted")).passages[0]
    assert passage.text == TEXTS["quota"][1]
    assert (passage.start, passage.end) == (0, len(passage.text))
    assert passage.metadata == TEXTS["quota"][2]
    assert passage.collection == "handbook"


async def test_limit_bounds_the_passages(retriever: Retriever) -> None:
    assert len((await retriever.search("key", limit=1)).passages) == 1


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"lang": "de"}, {"schluessel"}),
        ({"level": 1}, {"keys", "schluessel"}),
        ({"level": 1.0, "lang": "en"}, {"keys"}),
        ({"level": "1"}, set()),
        ({"level": True}, set()),
        ({"absent": None}, set()),
    ],
)
async def test_where_is_equality_of_every_entry(
    retriever: Retriever, where: dict[str, Any], expected: set[str]
) -> None:
    found = await retriever.search("key schlüssel", where=where)
    assert {passage.document_id for passage in found.passages} == expected


@pytest.mark.parametrize("query", ["", "  \n", "x" * 8_001])
async def test_an_empty_or_overlong_query_is_invalid(retriever: Retriever, query: str) -> None:
    with pytest.raises(Invalid) as caught:
        await retriever.search(query)
    assert caught.value.field == "query"


@pytest.mark.parametrize(
    "query", ["lone \ud800 key", "\x00key", "key' OR 1=1 --", "key AND (", "鍵 key", "key " * 1_999]
)
async def test_any_other_query_is_searched(retriever: Retriever, query: str) -> None:
    assert (await retriever.search(query)).passages


async def test_an_unknown_collection_is_missing(retriever: Retriever) -> None:
    with pytest.raises(Missing):
        await retriever.search("key", collection="nowhere")


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "x" * 65, "a\n"])
async def test_an_impossible_collection_is_invalid(retriever: Retriever, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        await retriever.search("key", collection=name)
    assert caught.value.field == "collection"


@pytest.mark.parametrize("limit", [0, -1, 101])
async def test_an_impossible_limit_is_invalid(retriever: Retriever, limit: int) -> None:
    with pytest.raises(Invalid):
        await retriever.search("key", limit=limit)


@pytest.mark.parametrize("key", ["", "a'b", 'a"b', "a=b", "a b", "1a", "ä", "a\nb", "x" * 65])
async def test_an_odd_filter_key_is_invalid(retriever: Retriever, key: str) -> None:
    with pytest.raises(Invalid):
        await retriever.search("key", where={key: "en"})


@pytest.mark.parametrize("value", [["en"], {"a": 1}, float("nan"), b"en"])
async def test_an_odd_filter_value_is_invalid(retriever: Retriever, value: Any) -> None:
    with pytest.raises(Invalid):
        await retriever.search("key", where={"lang": value})
