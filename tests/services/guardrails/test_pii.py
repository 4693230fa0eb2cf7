"""Personal data that has a form: what is found, what only looks like it, and how long a hostile text takes."""

import time
from collections.abc import Callable
from typing import get_args

import pytest

from app.config.guards import PersonalKind
from app.services.guardrails.find import find
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.pii import KINDS, PERSONAL
from app.services.guardrails.signs import signs

ALL = (*SECRETS, *PERSONAL)


def found(text: str) -> list[tuple[str, str]]:
    return [(each.kind, text[each.start : each.end]) for each in find(ALL, text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to ann.o'neil+x@mail.example.co.uk.", "email", "ann.o'neil+x@mail.example.co.uk"),
        ("<a_b@x-y.org>", "email", "a_b@x-y.org"),
        ("My number is +49 30 901820", "phone", "+49 30 901820"),
        ("0049 30 901820 please", "phone", "0049 30 901820"),
        ("(212) 555-0187 x22", "phone", "(212) 555-0187 x22"),
        ("Call 555 0187 today", "phone", "555 0187"),
        ("My SSN: 078 05 1120", "us_ssn", "078 05 1120"),
        ("It is 219-09-9999.", "us_ssn", "219-09-9999"),
        ("from 8.8.4.4, I think", "ip_address", "8.8.4.4"),
        ("at 2001:4860:4860::8888.", "ip_address", "2001:4860:4860::8888"),
        ("card 4111 1111 1111 1111, exp", "card_number", "4111 1111 1111 1111"),
        ("DE89 3704 0044 0532 0130 00 is mine", "iban", "DE89 3704 0044 0532 0130 00"),
    ],
)
def test_what_has_the_form_of_personal_data_is_found_to_the_letter(text: str, kind: str, value: str) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "user@localhost and @mention and a@b",
        "on 2024-05-30 at 10:20:30, in 1999 2000 2001",
        "order 4471 of 12/26, 1,250,000 rows, v3.11.4",
        "987-65-4320 and 000-12-3456 and 123-00-4567",
        "http://127.0.0.1:8000, 10.0.0.7 and 192.168.1.1 answer",
        "std::vector, 12:30:45 and ab:cd",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "id 3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "the sum of 1234 5678 is wrong",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_finds_do_not_overlap_and_stand_in_their_order() -> None:
    text = "a@b.de 4111111111111111 8.8.4.4 ann@b.de"
    assert [kind for kind, _ in found(text)] == ["email", "card_number", "ip_address", "email"]


HOSTILE = [
    "a" * 50_000, "a." * 25_000, "a@" * 25_000, "a@b." * 12_000, "1" * 50_000, "1 " * 25_000, "(1" * 25_000,
    "+1-" * 16_000, "1.1.1." * 8_000, "a:" * 25_000, "::" * 25_000, "4111 " * 10_000, "DE89 " * 10_000,
    "a@" + "b" * 50_000, "a@" + "b-" * 25_000, "1-" * 25_000, "078 05 " * 8_000, "tel " * 6_000 + "12 " * 8_000,
]  # fmt: skip


def cpu_s(look: Callable[[str], object], text: str) -> float:
    def once() -> float:
        started = time.process_time()
        look(text)
        return time.process_time() - started

    return min(once() for _ in range(3))


@pytest.mark.parametrize("look", [lambda text: find(ALL, text), signs], ids=["personal", "signs"])
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:8])
def test_v08_a_hostile_text_costs_by_its_length_alone(look: Callable[[str], object], text: str) -> None:
    """Four times the text took sixteen times as long if each place were looked at from each other one."""
    text = text[:5_000]
    assert cpu_s(look, text * 4) < 10 * cpu_s(look, text) + 0.01


def test_the_file_names_the_kinds_that_there_are() -> None:
    assert set(get_args(PersonalKind)) == {*KINDS, "card_number", "iban"}
