"""One reader of URLs, which refuses what another might read differently."""

import pytest

from app.outbound.errors import UrlInvalid
from app.outbound.url import host_name, read, without_credentials

AMBIGUOUS = [
    *("http://127.1/", "http://2130706433/", "http://0x7f.1/", "http://0x7f000001/", "http://0/", "http://017700000001/"),
    *("http://0177.0.0.1/", "http://127.0.0.01/", "http://1.2.3.4.5/", "http://127.0.0.1./x", "http://256.1.1.1.1./"),
    *("http://a@127.0.0.1/", "http://good.test:80@127.0.0.1/", "http://good.test%40127.0.0.1/", "http://u:p@good.test/"),
    *("http://good.test\\@127.0.0.1/", "http://127.0.0.1\\@good.test/", "http://good.test/\\..\\x", "http:\\\\127.1/"),
    *("http://good.test \t.evil/", "http://go\nod.test/", "http://good.test\r\nHost: evil/", "http://good\u200b.test/"),
    *("http:///127.0.0.1", "http:127.0.0.1", "//127.0.0.1/", "127.0.0.1", "", "http://", "http://:80/", "http://?x"),
    *("file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "ftp://good.test/", "jar:http://good.test!/", "data:,x"),
    *("http://good.test:0/", "http://good.test:65536/", "http://good.test:80:80/", "http://good.test:x/", "http://[::1"),
    *("http://[::1]x/", "http://x[::1]/", "http://[fe80::1%25eth0]/", "http://%31%32%37.0.0.1/"),
    *("http://\ud800.test/", "http://" + "a" * 9_000),
]  # fmt: skip


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_s05_what_readers_of_urls_differ_on_is_no_url_and_is_not_repeated(text: str) -> None:
    with pytest.raises(UrlInvalid) as refused:
        read(text)
    assert "127" not in refused.value.message
    assert "good" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("HTTP://Good.Test/a?b#c", "good.test", 80),
        ("https://good.test:8443", "good.test", 8443),
        ("http://bücher.test/", "xn--bcher-kva.test", 80),
        ("http://①②⑦.⓪.⓪.①/", "127.0.0.1", 80),  # digits in circles are digits: judged as the address they mean
        ("http://127。0。0。1/", "127.0.0.1", 80),
        ("http://[::FFFF:127.0.0.1]/", "::ffff:7f00:1", 80),
        ("http://good.test#@127.0.0.1/", "good.test", 80),
        ("http://good.test?@127.0.0.1/", "good.test", 80),
        ("http://good.test/@127.0.0.1/", "good.test", 80),
    ],
)
def test_s05_a_url_is_read_as_browsers_read_it(text: str, host: str, port: int) -> None:
    url = read(text)
    assert (url.raw_host, url.port, url.fragment) == (host, port, "")


def test_credentials_are_taken_out_of_a_url_that_may_have_them() -> None:
    assert without_credentials("https://ann:p%40ss@good.test/x?y=1") == (
        "https://good.test/x?y=1",
        {"Authorization": "Basic YW5uOnBAc3M="},
    )
    assert without_credentials("https://good.test/x") == ("https://good.test/x", {})


def test_a_listed_host_is_compared_as_urls_hold_it() -> None:
    assert [host_name(host) for host in ("Wiki.Corp.", "bücher.test", "10.0.0.1")] == [
        "wiki.corp",
        "xn--bcher-kva.test",
        "10.0.0.1",
    ]
    with pytest.raises(UrlInvalid):
        host_name("a b/c")
