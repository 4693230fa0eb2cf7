"""Answers that are kept outside the process: found again by who has the key, read by nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.sealing import new_key
from app.services.gateway.answers import RedisAnswers, tenant_hash
from app.services.gateway.kept import Keeping
from app.services.gateway.semantic import SemanticAnswers
from app.services.keyring import Keyring
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.vault import Vault
from tests.redis_server import redis_server
from tests.services.gateway.test_semantic import CLOCK_AT, HOUR, answer, name, text_of

QUESTION, CANARY = "How do I enable the canary mode?", "canary-5105-1051"


def keeping() -> Keeping:
    return Keeping(Vault(Keyring([new_key()])))


def held(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    with redis_server(tmp_path) as server:
        client: Redis = Redis(unix_socket_path=server.path)
        async with client:
            yield client


async def test_p01_an_answer_on_disk_shows_neither_itself_nor_its_question(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    ours, theirs = keeping(), keeping()
    here, there = [
        await SemanticAnswers.open(tmp_path / "a", embedder, keeping=each, look_s=30, now=lambda: CLOCK_AT)
        for each in (ours, theirs)
    ]
    await here.put(name(QUESTION), answer(CANARY), HOUR)
    assert b"canary" not in held(tmp_path)
    assert await text_of(here, name("How can I enable canary mode")) == CANARY
    assert await text_of(there, name(QUESTION)) is None, "another key's is a miss"
    await here.forget(tenant_hash("acme"))
    assert await text_of(here, name(QUESTION)) is None
    here.close()
    there.close()


async def test_p01_an_answer_in_redis_shows_nothing_and_opens_for_its_own_call_alone(redis: Redis) -> None:
    ours = keeping()
    answers = RedisAnswers(redis, keeping=ours)
    await answers.put(name(QUESTION), answer(CANARY), 60)
    (key,) = await redis.keys("*")
    kept = await redis.get(key)
    assert kept is not None
    assert b"canary" not in kept
    found = await answers.get(name(QUESTION))
    assert found is not None
    assert found.text == CANARY
    assert await RedisAnswers(redis, keeping=keeping()).get(name(QUESTION)) is None
    await answers.put(name("another"), answer("x"), 60)
    other = next(each for each in await redis.keys("*") if each != key)
    await redis.set(other, kept)
    assert await answers.get(name("another")) is None, "moved to another call it does not open"
