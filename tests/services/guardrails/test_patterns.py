import pytest

from tests.services.guardrails.leaks import LEAKS, whole


@pytest.mark.parametrize("name", LEAKS)
def test_every_seeded_leak_is_replaced_by_a_notice(name: str) -> None:
    text, secret = LEAKS[name]
    clean = whole(f"before {text} after")
    assert secret not in clean
    assert f"‹{name.split(',')[0].replace('_', ' ')} removed›" in clean
    assert clean.startswith("before ")


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # the check digit does not hold
        "1700000000000000",  # no issuer
        "DE89 3704 0044 0532 0130 01",
        "the sk-learn-compatible-estimators-page",
        "graph_aggregation_of_everything_that_is_longer_than_forty_three_characters",
        "task-0123456789abcdefghij",
        "keys begin with eyJ or with AKIA",
        "an id: 3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert whole(text) == text


def test_a_key_without_its_end_takes_the_rest_with_it() -> None:
    assert whole("So: -----BEGIN PRIVATE KEY-----\nMIIE") == "So: ‹private key removed›"


def test_text_behind_a_private_key_comes_out() -> None:
    key, _ = LEAKS["private_key"]
    assert whole(f"{key} The end.") == "‹private key removed› The end."
