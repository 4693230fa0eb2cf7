"""A credential becomes a Principal, or the same refusal."""

import asyncio
from dataclasses import dataclass, field

import pytest

from app.records import Principal
from app.services.access.access import Access, looks_like_jwt
from app.services.access.issuer import Issuer
from app.services.access.lockout import Lockout
from app.services.access.oidc import OidcVerifier
from app.services.access.remembered import RememberedKeys
from graphs.errors import QuotaExhausted, Unauthenticated

from .conftest import AUDIENCE, FakeIssuer

SECRET = f"ph_{'0' * 32}_{'k' * 43}"
DOTTED = "an.owner.key-with-dots-and-more-than-32-characters"


@dataclass(frozen=True)
class Key:
    key_id: str = "k1"
    tenant_id: str = "a"
    user_id: str = "u1"
    scopes: tuple[str, ...] = ("chat",)
    groups: tuple[str, ...] = ("payroll",)


@dataclass
class Book:
    """A key book in memory; `asked` is every secret it was asked for."""

    keys: dict[str, Key] = field(default_factory=lambda: {SECRET: Key(), DOTTED: Key("o", scopes=("owner",))})
    asked: list[str] = field(default_factory=list)

    async def verify(self, secret: str) -> Key | None:
        self.asked.append(secret)
        return self.keys.get(secret)

    async def find(self, key_id: str) -> Key | None:
        return next((key for key in self.keys.values() if key.key_id == key_id), None)


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (f"Bearer {SECRET}", None),
        (f"bearer  {SECRET} ", None),
        (None, SECRET),
        (f"Bearer {SECRET}", "something else"),
    ],
)
async def test_a_key_comes_in_either_header(authorization: str | None, api_key: str | None) -> None:
    principal = await Access(Book()).authenticate(authorization, api_key)
    assert principal == Principal("a", "u1", frozenset({"chat"}), "k1", frozenset({"payroll"}))


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (None, None),
        ("", None),
        (None, ""),
        ("Bearer", None),
        ("Bearer ", None),
        ("", SECRET),
        (f"Basic {SECRET}", None),
        (f"Basic {SECRET}", SECRET),
        (SECRET, None),
        (f"Bearer {SECRET[:-1]}", None),
        (f"Bearer {SECRET} x", None),
        (f"Bearer x, Bearer {SECRET}", None),
        ("Bearer " + "x" * 1_000_000, None),
        (None, "\ud800\x00"),
    ],
)
async def test_every_refusal_has_the_same_words(
    issuer: FakeIssuer, authorization: str | None, api_key: str | None
) -> None:
    for access in (Access(Book()), Access(Book(), OidcVerifier(Issuer(issuer.url), AUDIENCE))):
        with pytest.raises(Unauthenticated) as refused:
            await access.authenticate(authorization, api_key)
        assert refused.value.message == "the credential is missing or not valid"


async def test_a_token_and_a_key_both_open(issuer: FakeIssuer) -> None:
    book = Book()
    access = Access(book, OidcVerifier(Issuer(issuer.url), AUDIENCE))
    assert (await access.authenticate(f"Bearer {issuer.token()}", None)).user_id == "ada"
    assert book.asked == []
    assert (await access.authenticate(f"Bearer {SECRET}", None)).user_id == "u1"
    assert (await access.authenticate(f"Bearer {DOTTED}", None)).is_owner


async def test_without_an_issuer_a_token_is_only_a_wrong_key(issuer: FakeIssuer) -> None:
    with pytest.raises(Unauthenticated):
        await Access(Book()).authenticate(f"Bearer {issuer.token()}", None)
    assert issuer.seen == {}


@pytest.mark.parametrize("text", ["a.b.c", "e30.x", "e30.x.y.z", "W10.x.y", "é.x.y", "", DOTTED])
def test_few_things_look_like_a_token(text: str) -> None:
    assert not looks_like_jwt(text)
    assert looks_like_jwt("e30.x.y")


class TestLockout:
    @staticmethod
    def guess(n: int, key_id: str = "1" * 32) -> str:
        return f"ph_{key_id}_{n:043}"

    async def wrong(self, access: Access, *secrets: str, address: str = "10.0.0.1") -> None:
        for secret in secrets:
            with pytest.raises(Unauthenticated):
                await access.authenticate(None, secret, address)

    async def test_a17_the_twenty_first_guess_of_a_minute_waits(self) -> None:
        now = [0.0]
        book = Book()
        access = Access(book, lockout=Lockout(clock=lambda: now[0]))
        await self.wrong(access, *map(self.guess, range(10)))
        now[0] = 20.0
        await self.wrong(access, *map(self.guess, range(10, 20)))
        with pytest.raises(QuotaExhausted) as refused:
            await access.authenticate(None, self.guess(20), "10.0.0.1")
        assert refused.value.retry_after_s == 40.0
        assert self.guess(20) not in book.asked
        now[0] = 60.0
        await self.wrong(access, self.guess(20))

    async def test_a17_others_are_not_made_to_wait(self) -> None:
        access = Access(Book(), lockout=Lockout(clock=lambda: 0.0))
        await self.wrong(access, *map(self.guess, range(20)))
        assert (await access.authenticate(None, SECRET, "10.0.0.1")).user_id == "u1"
        await self.wrong(access, self.guess(0), address="10.0.0.2")

    async def test_one_wrong_secret_and_short_ones_are_no_guesses(self) -> None:
        access = Access(Book(), lockout=Lockout(clock=lambda: 0.0))
        await self.wrong(access, *[self.guess(0)] * 50, *(f"x{n}" for n in range(50)))

    async def test_its_memory_is_bounded(self) -> None:
        lockout = Lockout(clock=lambda: 0.0)
        for n in range(10_500):
            lockout.failed(self.guess(0), f"address {n}")
        assert len(lockout._failures) == 10_000


async def test_a_busy_key_is_looked_up_once_a_second_and_a_revoked_one_at_once() -> None:
    now = [100.0]
    book = Book()
    access = Access(book, remembered=RememberedKeys(clock=lambda: now[0]))
    for _ in range(5):
        assert (await access.authenticate(f"Bearer {SECRET}", None)).key_id == "k1"
    assert book.asked == [SECRET]
    now[0] += 1.1
    await access.authenticate(f"Bearer {SECRET}", None)
    assert len(book.asked) == 2
    del book.keys[SECRET]
    access.forget("k1")
    with pytest.raises(Unauthenticated):
        await access.authenticate(f"Bearer {SECRET}", None)


async def test_requests_that_come_together_with_one_key_share_one_look_into_the_store() -> None:
    book, go_on = Book(), asyncio.Event()
    verify = book.verify

    async def slow(secret: str) -> Key | None:
        found = await verify(secret)
        await go_on.wait()
        return found

    book.verify = slow  # type: ignore[method-assign]
    access = Access(book)
    good = [asyncio.create_task(access.authenticate(None, SECRET)) for _ in range(20)]
    wrong = [asyncio.create_task(access.authenticate(None, SECRET[:-1], "10.0.0.1")) for _ in range(3)]
    await asyncio.sleep(0)
    good[0].cancel()  # the one whose look it was
    go_on.set()
    outcomes = await asyncio.gather(*good, *wrong, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert {getattr(outcome, "key_id", None) for outcome in outcomes[1:20]} == {"k1"}
    assert all(isinstance(outcome, Unauthenticated) for outcome in outcomes[20:])
    assert book.asked == [SECRET, SECRET[:-1]]
