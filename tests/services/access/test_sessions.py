"""Console sessions and the links that open them."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from app.records import Principal
from app.services.access.owner import ensure_owner_key
from app.services.access.sessions import LoginTokens, Sessions, session_secret, signer
from graphs.errors import Unauthenticated

ADA = Principal("a", "ada", frozenset({"chat", "runs"}), "k1")


class Keys:
    def __init__(self) -> None:
        self.live = {"k1"}

    async def verify(self, secret: str) -> None:
        return None

    async def active(self, key_id: str) -> bool:
        return key_id in self.live


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
