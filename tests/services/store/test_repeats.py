"""Idempotency keys: what they stand for, whose they are, how long they are kept."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.records import Actor
from app.sealing import new_key
from app.services.keyring import Keyring
from app.services.store.erasure import Erasures, Subject
from app.services.store.repeats import HELD, KEPT, Claim, KeyReused
from app.services.store.store import Store
from app.services.store.tables import repeats
from app.services.vault import Vault

CANARY = "canary-5105-1051"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(store_url: str, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(store_url, clock, Vault(Keyring([new_key()])))
    yield opened
    await opened.close()


async def claim(store: Store, key: str = CANARY, asked: bytes = b"this", user: str = "ann") -> Claim:
    return await store.repeats.claim("acme", user, key, asked)


async def test_p06_of_fifty_who_claim_a_key_at_once_one_has_it_and_all_know_the_same_work(store: Store) -> None:
    found = await asyncio.gather(*(claim(store) for _ in range(50)))
    assert sum(each.mine for each in found) == 1
    assert len({each.ref for each in found}) == 1


async def test_p07_a_key_stands_for_one_request_of_one_user(store: Store) -> None:
    await claim(store)
    with pytest.raises(KeyReused):
        await claim(store, asked=b"that")
    assert (await claim(store, asked=b"that", user="al")).mine
    assert (await store.repeats.claim("umbrella", "ann", CANARY, b"that")).mine


async def test_p09_a_key_is_taken_over_once_nobody_holds_it_and_whoever_had_it_says_nothing_any_more(
    store: Store, clock: Clock
) -> None:
    first = await claim(store)
    clock.now += HELD - timedelta(seconds=1)
    await store.repeats.hold(first)
    clock.now += HELD - timedelta(seconds=1)
    assert not (await claim(store)).mine
    clock.now += timedelta(seconds=2)
    second = await claim(store)
    assert (second.mine, second.ref) == (True, first.ref)
    await store.repeats.finish(first, {"said": "by the first"})
    await store.repeats.release(first)
    assert not (await claim(store)).done
    await store.repeats.finish(second, {"said": "by the second"})
    assert (await claim(store)).answer == {"said": "by the second"}


async def test_a_key_whose_work_was_refused_stands_for_nothing(store: Store) -> None:
    await store.repeats.release(await claim(store))
    assert (await claim(store, asked=b"that")).mine


async def test_answers_are_sealed_and_keys_are_digests_and_both_go_with_their_person(store: Store) -> None:
    await store.repeats.finish(await claim(store), {"said": CANARY})
    await store.repeats.finish(await claim(store, user="al"), {"said": CANARY})

    async def rows() -> list[Any]:
        async with store.database.read() as connection:
            return [tuple(row) for row in await connection.execute(select(repeats))]

    assert CANARY not in str(await rows())
    gone = await Erasures(store.database).erase(Subject("acme", "ann"), Actor("acme", "eve"))
    assert (gone["repeats"], len(await rows())) == (1, 1)


async def test_keys_are_kept_for_a_day_and_the_newest_of_a_user_alone(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.store.repeats.KEPT_OF_A_USER", 2)
    for name in ("a", "b", "c"):
        await store.repeats.finish(await claim(store, name), {"said": name})
        await claim(store, name, user="al")
        clock.now += timedelta(hours=1)
    assert await store.repeats.sweep() == 2
    assert (await claim(store, "c")).done
    assert (await claim(store, "a", b"that")).mine
    clock.now += KEPT - timedelta(hours=2)
    assert (await claim(store, "b", b"that")).mine, "its day is over, swept or not"
    assert await store.repeats.sweep() == 2, "one whose day is over, and one beyond the newest"
