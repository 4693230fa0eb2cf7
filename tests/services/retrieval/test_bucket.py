"""An index in a bucket: written by several processes, left by killed ones, rid of what was erased."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from app.buckets import Bucket
from app.services.retrieval import opening
from app.services.retrieval.bucket_turns import BucketTurns
from app.services.retrieval.commit import IndexAway, IndexFailed
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.retrieval.locks import Taken
from app.services.retrieval.maintenance import Maintenance
from tests.buckets import CREDENTIALS, contents
from tests.services.retrieval.entries import doc

LEASE_S = 5.0  # a process that stands still for half of it loses its turn, as on a crowded machine
OWN = ("Host", "Content-Length", "Transfer-Encoding")
TOLD = ("ETag", "Last-Modified", "Content-Range", "Content-Type")


@pytest.fixture
def bucket(new_bucket: Callable[[], Bucket], monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(opening, "BucketTurns", partial(BucketTurns, lease_s=LEASE_S))
    return new_bucket()


@pytest_asyncio.fixture
async def library(bucket: Bucket, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(bucket, embedder)
    yield made
    await made.close()


async def found(library: Library, query: str = "key") -> list[str]:
    return [each.document_id for each in (await library.search("acme", "notes", query, limit=50)).passages]


async def test_a_turn_is_one_holders_and_goes_to_the_next_when_it_is_given_back(bucket: Bucket) -> None:
    one, two = BucketTurns(bucket), BucketTurns(bucket)
    async with one.hold("a", wait=False):
        with pytest.raises(Taken):
            async with two.hold("a", wait=False):
                pass
        async with two.hold("b", wait=False):
            pass
    async with two.hold("a", wait=False):
        pass


async def test_a_turn_that_is_held_longer_than_a_lease_stays_its_holders(bucket: Bucket) -> None:
    one, two = BucketTurns(bucket, lease_s=2), BucketTurns(bucket, lease_s=5)
    async with one.hold("a", wait=True):
        await asyncio.sleep(2.5)
        with pytest.raises(Taken):
            async with two.hold("a", wait=False):
                pass


async def test_k04_a_holder_whose_turn_was_taken_is_broken_off(bucket: Bucket) -> None:
    went_on = False
    with pytest.raises(IndexFailed, match="lost"):
        async with BucketTurns(bucket, lease_s=0.4).hold("a", wait=True):
            await bucket.opened().put_async(".locks/a", b"another's")
            await asyncio.sleep(20)
            went_on = True
    assert not went_on


@pytest.mark.timeout(300)
async def test_d14_a_store_that_is_away_for_a_moment_damages_nothing(bucket: Bucket, embedder: MiniLmEmbedder) -> None:
    away = False

    async def pass_on(request: web.Request) -> web.Response:
        if away:
            return web.Response(status=503)
        headers = {name: value for name, value in request.headers.items() if name.title() not in OWN}
        target = f"{bucket.endpoint_url}{request.raw_path}"
        async with client.request(request.method, target, data=await request.read(), headers=headers) as answer:
            told = {name: answer.headers[name] for name in TOLD if name in answer.headers}
            if request.method == "HEAD":
                return web.Response(
                    status=answer.status, headers=told | {"Content-Length": answer.headers["Content-Length"]}
                )
            return web.Response(status=answer.status, body=await answer.read(), headers=told)

    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{rest:.*}", pass_on)
    async with ClientSession(auto_decompress=False) as client, TestServer(application) as server:
        library = await Library.open(Bucket(bucket.name, bucket.prefix, str(server.make_url(""))), embedder)
        await library.replace("acme", "notes", [await doc(embedder, "a", "a key")])
        away = True
        with pytest.raises(IndexAway):
            await found(library)
        assert library.damages == ()
        away = False
        assert await found(library) == ["a"]
        await library.close()


# Vectors are made up: the writers' commits are what is tried, and loading the model twice more would take longer.
WRITER = """
import asyncio, sys
from types import SimpleNamespace
import numpy as np
from app.buckets import Bucket
from app.services.retrieval.library import Library
from tests.services.retrieval.entries import Doc, Piece

def made_up(name, text):
    return Doc(name, "", (Piece(text),), np.full((1, 384), 384**-0.5, np.float32))

async def main(bucket, prefix, endpoint, embedder, name, times):
    library = await Library.open(Bucket(bucket, prefix, endpoint), SimpleNamespace(id=embedder, dimensions=384))
    for number in range(int(times)):
        entries = [made_up(f"{name}-{number}", f"key {number} of {name}"), made_up("shared", "the shared key")]
        await library.replace("acme", "notes", entries)
        print(number, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def writer(bucket: Bucket, name: str, times: int) -> asyncio.subprocess.Process:
    words = (bucket.name, bucket.prefix, bucket.endpoint_url or "", MiniLmEmbedder.id, name, str(times))
    return await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, *words, stdout=asyncio.subprocess.PIPE)


@pytest.mark.timeout(300)  # importing lancedb twice more took half a minute on a crowded machine
async def test_d04_writers_in_several_processes_lose_and_double_nothing_in_a_bucket(
    bucket: Bucket, library: Library
) -> None:
    writers = [await writer(bucket, name, 2) for name in ("one", "two")]
    assert [await each.wait() for each in writers] == [0, 0]
    documents = await found(library)
    assert sorted(documents) == ["one-0", "one-1", "shared", "two-0", "two-1"]


@pytest.mark.timeout(300)
async def test_d11_a_killed_writer_leaves_a_table_in_the_bucket_that_is_read_and_written(
    bucket: Bucket, library: Library, embedder: MiniLmEmbedder
) -> None:
    dying = await writer(bucket, "dying", 1_000)
    assert dying.stdout is not None
    for _ in range(2):
        await dying.stdout.readline()
    await asyncio.sleep(0.3)  # into the third write
    dying.send_signal(signal.SIGKILL)
    await dying.wait()
    assert {"dying-0", "dying-1", "shared"} <= set(await found(library))
    await library.replace("acme", "notes", [await doc(embedder, "after", "the key after it")])
    assert "after" in await found(library)


@pytest.mark.timeout(300)
async def test_after_a_round_of_maintenance_erased_text_is_in_no_object_of_the_bucket(
    bucket: Bucket, library: Library, embedder: MiniLmEmbedder
) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "secret", "the key is zebrafish77")])
    await library.replace("acme", "notes", [await doc(embedder, "kept", "another key is axolotl88")])
    assert b"zebrafish77" in b"".join((await contents(bucket)).values())
    await library.remove("acme", "notes", "secret")
    assert await found(library) == ["kept"]
    await Maintenance(library, None).round()
    held = b"".join((await contents(bucket)).values())
    assert b"zebrafish77" not in held
    assert b"axolotl88" in held
    assert await found(library) == ["kept"]
