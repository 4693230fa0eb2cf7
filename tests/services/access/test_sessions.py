"""Console sessions and the links that open them."""

import asyncio
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from app.records import Principal
from app.services.access.owner import ensure_owner_key
from app.services.access.sessions import LoginTokens, Sessions, session_secret, signer
from graphs.errors import Unauthenticated

ADA = Principal("a", "ada", frozenset({"chat", "runs"}), "k1", frozenset({"payroll"}))


@dataclass(frozen=True)
class Key:
    key_id: str = "k1"
    tenant_id: str = "a"
    user_id: str = "ada"
    scopes: tuple[str, ...] = ("chat", "runs")
    groups: tuple[str, ...] = ("payroll",)


class Keys:
    def __init__(self) -> None:
        self.live = {"k1": Key()}

    async def verify(self, secret: str) -> None:
        return None

    async def find(self, key_id: str) -> Key | None:
        return self.live.get(key_id)


class TestSessions:
    async def test_a_cookie_brings_back_who_it_was_made_for(self) -> None:
        sessions = Sessions("secret", Keys())
        assert await sessions.check(sessions.issue(ADA)) == ADA

    async def test_a_cookie_fits_a_header_whatever_the_name(self) -> None:
        sessions = Sessions("secret", Keys())
        strange = Principal('a";\r\n', "ü\u202e", frozenset(), "")
        cookie = sessions.issue(strange)
        assert cookie.isascii()
        assert not set(cookie) & set(' ";,\\\r\n')
        assert await sessions.check(cookie) == strange

    async def test_the_session_of_a_revoked_key_is_over(self) -> None:
        keys = Keys()
        sessions = Sessions("secret", keys)
        cookie = sessions.issue(ADA)
        keys.live.clear()
        with pytest.raises(Unauthenticated):
            await sessions.check(cookie)

    async def test_a_session_is_in_the_groups_that_its_key_is_in_now(self) -> None:
        keys = Keys()
        cookie = Sessions("secret", keys).issue(ADA)
        keys.live["k1"] = Key(groups=("sales",))
        assert (await Sessions("secret", keys).check(cookie)).groups == {"sales"}

    async def test_a_session_without_a_key_keeps_the_groups_of_its_login_as_far_as_a_cookie_holds_them(self) -> None:
        sessions = Sessions("secret", Keys())
        few = Principal("a", "grace", frozenset({"chat"}), groups=frozenset({"payroll", "sales"}))
        assert await sessions.check(sessions.issue(few)) == few
        many = replace(few, groups=frozenset(str(uuid4()) for _ in range(256)))
        cookie = sessions.issue(many)
        assert len(cookie) < 3_800
        assert frozenset() < (await sessions.check(cookie)).groups < many.groups

    async def test_a_cookie_from_before_groups_is_good_and_in_none(self) -> None:
        old = str(signer("secret", "session").dumps(["a", "grace", ["chat"], ""]))
        assert (await Sessions("secret", Keys()).check(old)).groups == frozenset()

    async def test_a_session_ends_after_twelve_hours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sessions = Sessions("secret", Keys())
        cookie, now = sessions.issue(ADA), time.time()
        monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 - 10)
        assert await sessions.check(cookie) == ADA
        monkeypatch.setattr(time, "time", lambda: now + 12 * 3600 + 10)
        with pytest.raises(Unauthenticated):
            await sessions.check(cookie)

    async def test_a_forged_cookie_is_refused(self) -> None:
        sessions = Sessions("secret", Keys())
        good = sessions.issue(ADA)
        body, stamp, signature = good.rsplit(".", 2)
        forged = [
            None,
            "",
            "x",
            "\ud800",
            good[:-1],
            f"{body}.{stamp}",
            f"{body}x.{stamp}.{signature}",
            f"{body}.{stamp}A.{signature}",
            Sessions("other secret", Keys()).issue(ADA),
            str(signer("secret", "login").dumps(["a", "ada", ["owner"], ""])),
        ]
        for cookie in forged:
            with pytest.raises(Unauthenticated):
                await sessions.check(cookie)


class TestLoginTokens:
    def test_a_link_opens_once(self) -> None:
        tokens = LoginTokens()
        token = tokens.issue(ADA)
        assert tokens.redeem(token) == ADA
        with pytest.raises(Unauthenticated):
            tokens.redeem(token)

    def test_a_link_ends_after_fifteen_minutes_and_is_forgotten(self) -> None:
        now = [0.0]
        tokens = LoginTokens(clock=lambda: now[0])
        early, late = tokens.issue(ADA), tokens.issue(ADA)
        now[0] = 899.0
        assert tokens.redeem(early) == ADA
        now[0] = 900.0
        with pytest.raises(Unauthenticated):
            tokens.redeem(late)
        tokens.issue(ADA)
        now[0] = 2_000.0
        tokens.issue(ADA)
        assert len(tokens._open) == 1

    @pytest.mark.parametrize("token", ["", "x", "\ud800", "x" * 100_000])
    def test_a_made_up_link_opens_nothing(self, token: str) -> None:
        tokens = LoginTokens()
        tokens.issue(ADA)
        with pytest.raises(Unauthenticated):
            tokens.redeem(token)


class TestSecretFiles:
    def test_the_owner_key_is_made_once_for_its_owner_alone(self, tmp_path: Path) -> None:
        home = tmp_path / "new" / "home"
        key = ensure_owner_key(home, None)
        assert len(key) >= 32
        assert ensure_owner_key(home, None) == key
        assert (home / "owner.key").stat().st_mode & 0o777 == 0o600
        assert [file.name for file in home.iterdir()] == ["owner.key"]

    def test_a_configured_owner_key_wins_and_stays(self, tmp_path: Path) -> None:
        ensure_owner_key(tmp_path, None)
        assert ensure_owner_key(tmp_path, "c" * 32) == "c" * 32
        assert ensure_owner_key(tmp_path, None) == "c" * 32
        assert (tmp_path / "owner.key").stat().st_mode & 0o777 == 0o600

    def test_a_file_that_others_could_read_is_closed_to_them(self, tmp_path: Path) -> None:
        (tmp_path / "owner.key").write_text("k" * 32)
        (tmp_path / "owner.key").chmod(0o644)
        assert ensure_owner_key(tmp_path, None) == "k" * 32
        assert (tmp_path / "owner.key").stat().st_mode & 0o777 == 0o600

    async def test_processes_that_start_together_agree(self, tmp_path: Path) -> None:
        code = (
            "import sys, pathlib; from app.services.access.owner import ensure_owner_key;"
            "print(ensure_owner_key(pathlib.Path(sys.argv[1]), None))"
        )

        async def other_process() -> bytes:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, str(tmp_path), stdout=asyncio.subprocess.PIPE
            )
            return (await process.communicate())[0]

        assert len(set(await asyncio.gather(*(other_process() for _ in range(4))))) == 1

    def test_the_session_secret_is_kept_apart(self, tmp_path: Path) -> None:
        assert session_secret(tmp_path) == session_secret(tmp_path)
        assert (tmp_path / "session.secret").stat().st_mode & 0o777 == 0o600
