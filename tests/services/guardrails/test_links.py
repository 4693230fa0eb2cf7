"""Links stay to listed hosts alone, however they are written."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.services.guardrails.links import link_patterns
from app.services.guardrails.markup import markup_patterns
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.stream import PatternFilter

HOSTS = frozenset({"docs.example"})
PATTERNS = (*SECRETS, *markup_patterns(HOSTS), *link_patterns(HOSTS))
KEPT = [
    "See [the page](https://docs.example/a?b=c#d).",
    'See [the page](<https://docs.example/a> "Title").',
    "Plain https://docs.example/a, and (https://docs.example/b).",
    "![chart](https://docs.example/p.png)",
    "Note: a[0] and f(x) are no links.",
]
ATTACKS = [
    "[go](https://evil.example/?d=1)",
    "[go](<https://evil.example/?d=1>)",
    '[go](https://evil.example/?d=1 "title")',
    "[go](&#104;ttps://evil.example/)",
    "[go](//evil.example/)",
    "[go](https:\\\\evil.example/)",
    "[go](https://docs.example@evil.example/)",
    "[go](https://docs.example.evil.example/)",
    "[go][r]\n\n[r]: https://evil.example/?d=1",
    "[go]\n\n[go]: //evil.example/",
    "<https://evil.example/?d=1>",
    "<HTTPS://evil.example/?d=1>",
    "https://evil.example/?d=1",
    "(see www.evil.example/?d=1)",
    "<a href='https://evil.example/?d=1'>go</a>",
    "<a href=&#104;ttps://evil.example/>go</a>",
    "<A\nHREF=//evil.example>go</A>",
]
FRAGMENTS = [*KEPT, *ATTACKS, "[", "](", "]:", "](https://", "http", "www.", "<a", " ", "\n", ".", ")"]


def whole(text: str) -> str:
    applied = PatternFilter(PATTERNS)
    return applied.feed(text) + applied.close()


def links(text: str) -> list[str]:
    """Where a browser could be led: by Markdown, by raw HTML, and by addresses that a renderer makes links of."""
    html = MarkdownIt("commonmark", {"html": True}).render(text)
    hrefs: list[str] = re.findall(r"<a\s[^>]*href\s*=\s*[\"']?([^\"'\s>]+)", html, re.IGNORECASE)
    return hrefs + re.findall(r"(?:https?:[/\\]{2}|www\.)\S+", text, re.IGNORECASE)


@pytest.mark.parametrize("text", KEPT)
def test_what_leads_to_a_listed_host_stays_as_it_is(text: str) -> None:
    assert whole(text) == text


@pytest.mark.parametrize("attack", ATTACKS)
def test_x03_no_link_leads_to_another_host(attack: str) -> None:
    assert links(attack), "an attack leads somewhere before it is cleaned"
    assert links(f"Look: {whole(attack)} now") == []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=6).map("".join), st.data())
def test_wherever_a_link_is_cut_the_output_is_the_same(text: str, data: st.DataObject) -> None:
    applied, out, at = PatternFilter(PATTERNS), "", 0
    while at < len(text):
        size = data.draw(st.integers(1, 12))
        out += applied.feed(text[at : at + size])
        at += size
    assert out + applied.close() == whole(text)


def test_with_no_host_listed_the_words_of_a_link_are_left() -> None:
    applied = PatternFilter(link_patterns(frozenset()))
    told = applied.feed("See [the page](https://docs.example/a).") + applied.close()
    assert told == "See [the page] (\u2039link removed\u203a)."
