"""What a model wrote becomes HTML that is only ever text, structure, safe links and our own chips."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.console.prose import prose
from app.records import CardCitation, CardSentence
from tests.console.hostile import ATTACK

ALLOWED = {
    "p", "em", "strong", "s", "code", "pre", "a", "span", "button", "ul", "ol", "li", "blockquote", "hr", "br",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {
    "href",
    "target",
    "rel",
    "class",
    "title",
    "type",
    "aria-label",
    "data-act",
    "data-number",
    "start",
    "style",
}


class Seen(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(str(html))  # a plain string: pieces of Markup would be escaped when they are joined

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in {"br", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def citation(number: int, title: str = "Keys") -> CardCitation:
    return CardCitation(
        number=number, chunk_id="c", document_id="d", title=title, heading="", quote="q", start=0, end=1, score=0.9,
        collection="handbook",
    )  # fmt: skip


def sentence(text: str, part: str, *, supported: bool = True, citations: tuple[int, ...] = ()) -> CardSentence:
    start = text.index(part)
    return CardSentence(
        text=part, start=start, end=start + len(part), score=0.3, supported=supported, citations=citations
    )


def safe(html: str) -> Seen:
    seen = Seen(html)
    assert seen.tags <= ALLOWED
    assert {name for name, _ in seen.attributes} <= ATTRIBUTES
    for name, value in seen.attributes:
        assert name != "style" or value.startswith("text-align:")
        assert name != "href" or value.startswith(("http://", "https://", "mailto:"))
    assert seen.open == []
    return seen


@given(st.text(alphabet="<>&\"'`!()[]{}$*_~#-|:./ \nabhttps\U000f0000\U00100000\u2005", max_size=200))
def test_whatever_a_model_writes_becomes_safe_and_balanced_html(text: str) -> None:
    half = len(text) // 2
    sentences = [
        CardSentence(text="", start=0, end=half, score=0.2, supported=False, citations=(1,)),
        CardSentence(text="", start=half, end=len(text), score=0.9, supported=True, citations=(1, 2)),
    ]
    safe(prose(text, sentences, [citation(1), citation(2, title='"><img src=x>')]))


def test_an_attack_is_shown_as_the_text_it_is() -> None:
    seen = safe(prose(ATTACK))
    assert "<img src=x onerror=window.stolen=1>" in seen.words
    assert "[run](javascript:window.stolen=3)" in seen.words
    assert "Image not shown: leak (evil.test)" in seen.words


@pytest.mark.parametrize(
    "text",
    [
        "Keys are **revoked.** Nothing else.",
        "- Keys are revoked.\n- Nothing else.",
        "# Keys are revoked.\n\nNothing else.",
    ],
)
def test_a_chip_follows_its_sentence_in_any_structure(text: str) -> None:
    first = "Keys are **revoked." if "**" in text else "Keys are revoked."
    html = prose(text, [sentence(text, first, citations=(1,)), sentence(text, "Nothing else.")], [citation(1)])
    words = safe(html).words.replace("\u2060", "").replace("\n", "")
    assert words.replace(" ", "") == "Keysarerevoked.1Nothingelse."
    assert ("strong" in html) == ("**" in text)


def test_a_marker_in_the_text_becomes_the_chip_and_is_not_repeated() -> None:
    text = "Keys are revoked [1]. More."
    html = prose(text, [sentence(text, "Keys are revoked [1].", citations=(1,))], [citation(1)])
    assert html.count('class="chip"') == 1
    assert "[1]" not in safe(html).words


def test_a_marker_of_no_citation_stays_text() -> None:
    assert "[7]" in safe(prose("As in [7].", (), [citation(1)])).words


def test_only_unsupported_sentences_are_marked() -> None:
    text = "This is so. That is not."
    html = prose(text, [sentence(text, "This is so."), sentence(text, "That is not.", supported=False)])
    assert html.count('class="unsupported"') == 1
    assert ">That is not.</span>" in html


def test_a_chip_is_not_lost_when_its_sentence_ends_in_a_definition() -> None:
    text = "See [it][ref].\n\n[ref]: http://a.test/b"
    html = prose(text, [sentence(text, text, citations=(1,))], [citation(1)])
    assert html.count('class="chip"') == 1
