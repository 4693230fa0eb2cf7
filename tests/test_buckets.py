"""What a store has to be for several processes to write to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.buckets import TRIES, Bucket, BucketFailed, BucketUnfit
from graphs.errors import Missing
from tests.buckets import CREDENTIALS


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


async def test_a_bucket_that_honours_conditions_will_do(new_bucket: Callable[[], Bucket]) -> None:
    await new_bucket().check()


async def test_a_bucket_that_is_not_there_says_so(new_bucket: Callable[[], Bucket]) -> None:
    with pytest.raises(Missing, match="s3://not-there/install"):
        await Bucket("not-there", "install", new_bucket().endpoint_url).check()


async def test_a_store_that_lets_both_of_two_writers_win_is_refused() -> None:
    async def answer(_: web.Request) -> web.Response:
        deleted = "<DeleteResult><Deleted><Key>any</Key></Deleted></DeleteResult>"
        return web.Response(text=deleted, headers={"ETag": '"1"'})

    async with served(answer) as bucket:
        with pytest.raises(BucketUnfit):
            await bucket.check()


async def test_d14_a_store_that_is_away_is_asked_again_and_then_said_to_be() -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503)

    async with served(answer) as bucket:
        with pytest.raises(BucketFailed):
            await bucket.check()
    assert asked == 1 + TRIES


@asynccontextmanager
async def served(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[Bucket]:
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", answer)
    async with TestServer(application) as server:
        yield Bucket("any", "", str(server.make_url("")))
