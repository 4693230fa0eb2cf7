"""Sealing, opening, and every way in which opening must fail."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sealing import new_key, put_first
from app.services.keyring import KEY_BYTES, Key, Keyring, parse_keys
from app.services.vault import MARK, SealBroken, Unsealed, Vault, VaultError, VaultKeyMissing
from graphs.errors import Invalid

PLACE = ("messages", "content", "c1", "m1", "user")
OLD, NEW = new_key(), new_key()


@given(st.binary(max_size=10_000))
def test_what_was_sealed_opens_as_it_was(value: bytes) -> None:
    vault = Vault(Keyring([OLD]))
    assert vault.open(vault.seal(value, "acme", PLACE), "acme", PLACE) == value
    assert vault.open_text(vault.seal_text(value, "acme", PLACE), "acme", PLACE) == value


def test_a_sealed_value_shows_its_key_and_nothing_of_what_is_in_it() -> None:
    sealed = Vault(Keyring([OLD])).seal_text(b"4111 1111 1111 1111", "acme", PLACE)
    assert sealed.startswith(f"{MARK}{OLD.key_id}.")
    assert b"4111" not in base64.b64decode(sealed.removeprefix(f"{MARK}{OLD.key_id}."))
    assert sealed != Vault(Keyring([OLD])).seal_text(b"4111 1111 1111 1111", "acme", PLACE)


def test_a_long_value_is_made_smaller_before_it_is_sealed() -> None:
    assert len(Vault(Keyring([OLD])).seal(b"the same words " * 1_000, "acme", PLACE)) < 1_000


@pytest.mark.parametrize("at", range(len(PLACE)))
def test_p03_a_value_moved_to_any_other_place_does_not_open(at: int) -> None:
    vault = Vault(Keyring([OLD]))
    elsewhere = [*PLACE[:at], PLACE[at] + "x", *PLACE[at + 1 :]]
    with pytest.raises(SealBroken):
        vault.open(vault.seal(b"secret", "acme", PLACE), "acme", elsewhere)


def test_p03_a_value_moved_to_another_tenant_does_not_open() -> None:
    vault = Vault(Keyring([OLD]))
    with pytest.raises(SealBroken):
        vault.open(vault.seal(b"secret", "acme", PLACE), "globex", PLACE)


def test_p03_ids_cannot_be_shifted_between_the_parts_of_a_place() -> None:
    vault = Vault(Keyring([OLD]))
    with pytest.raises(SealBroken):
        vault.open(vault.seal(b"secret", "a", ("t", "ab", "c")), "a", ("t", "a", "bc"))


@pytest.mark.parametrize("at", [0, len(MARK) + len(OLD.key_id) + 2, -1])
def test_p03_a_changed_value_is_refused(at: int) -> None:
    vault = Vault(Keyring([OLD]))
    sealed = bytearray(vault.seal(b"secret", "acme", PLACE))
    sealed[at] ^= 1
    with pytest.raises(VaultError):
        vault.open(bytes(sealed), "acme", PLACE)


@pytest.mark.parametrize(
    "value",
    [b"", b"plain", b"pv1.", b"pv1.k1", f"{MARK}{OLD.key_id}.".encode()],
    ids=["nothing", "plain", "a mark", "no body", "an empty body"],
)
def test_p03_what_is_not_sealed_is_refused(value: bytes) -> None:
    with pytest.raises((Unsealed, SealBroken)):
        Vault(Keyring([OLD])).open(value, "acme", PLACE)


def test_p04_all_keys_open_and_the_first_seals() -> None:
    sealed = Vault(Keyring([OLD])).seal(b"secret", "acme", PLACE)
    vault = Vault(Keyring([NEW, OLD]))
    assert vault.open(sealed, "acme", PLACE) == b"secret"
    assert vault.mark == f"{MARK}{NEW.key_id}."


def test_p04_a_lost_key_is_named() -> None:
    sealed = Vault(Keyring([OLD])).seal(b"secret", "acme", PLACE)
    with pytest.raises(VaultKeyMissing, match=f"{OLD.key_id}.*at hand: '{NEW.key_id}'"):
        Vault(Keyring([NEW])).open(sealed, "acme", PLACE)


def test_p04_another_key_under_the_same_id_opens_nothing_and_is_named() -> None:
    sealed = Vault(Keyring([OLD])).seal(b"secret", "acme", PLACE)
    with pytest.raises(SealBroken, match=OLD.key_id):
        Vault(Keyring([Key(OLD.key_id, NEW.secret)])).open(sealed, "acme", PLACE)


@pytest.mark.parametrize(
    "told",
    ["", "k1", "k1:", ":QUJD", "k1:not base64!", f"k 1:{base64.b64encode(bytes(KEY_BYTES)).decode()}", "k1:QUJD"],
)
def test_p10_keys_that_are_none_are_refused_without_telling_them(told: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_keys(told)
    assert "QUJD" not in str(refused.value)
    assert repr(OLD.secret) not in repr(OLD)


def test_two_keys_with_one_id_are_refused() -> None:
    with pytest.raises(Invalid, match="same id"):
        parse_keys(f"{OLD.written()},{OLD.written()}")


def test_p04_running_processes_see_a_key_that_is_put_into_their_file(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "encryption.keys"
    file.write_text(OLD.written())
    writer, reader = Keyring.of_file(file, now=lambda: now), Keyring.of_file(file, now=lambda: now)
    put_first(file, NEW)
    assert writer.current == OLD, "a file is not looked at for every value"
    now += 2
    assert writer.current == NEW
    sealed = Vault(writer).seal(b"secret", "acme", PLACE)
    assert Vault(reader).open(sealed, "acme", PLACE) == b"secret", "an unknown key is looked for at once"
    assert os.stat(file).st_mode & 0o777 == 0o600


def test_a_key_file_that_is_broken_while_it_is_used_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "encryption.keys"
    file.write_text(OLD.written())
    ring = Keyring.of_file(file)
    file.write_text("garbage")
    ring.reload()
    assert ring.current == OLD
