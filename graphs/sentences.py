"""Where sentences begin and end, in prose and in Markdown.

Rules, not a model: abbreviations, initials, decimals, dotted identifiers and inline code do not end a sentence; a list
item, a table row and a line of fenced code each stand alone. English first; CJK full stops are known. A sentence that
starts in lower case after a full stop is read as part of the one before it.
"""

import re
from collections.abc import Iterator
from typing import Final

Span = tuple[int, int]

_FENCE: Final = re.compile(r"[ \t]{0,3}(?:```|~~~)")
_HEADING: Final = re.compile(r"[ ]{0,3}#{1,6}[ \t]")
_TABLE_ROW: Final = re.compile(r"[ \t]*\|")
_RULE: Final = re.compile(r"[ \t]*(?:\|[ \t:|-]*|[-=*_]{3,}[ \t]*)$")
_MARKER: Final = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)]|[a-z][.)]|>)[ \t]+")
# From the first sign of a run only: a row of dots that ends nothing is looked at once.
_ENDER: Final = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]*_]*+(?=\s)|[。！？]+[\"”』」]*")
_CODE: Final = re.compile(r"`[^`\n]*`")
_LAST_WORD: Final = re.compile(r"[^\s(\[\"'“‘]*$")
_NEXT_WORD: Final = re.compile(r"\s*[\"'“‘(\[*_]*(\w*)")
_INITIAL: Final = re.compile(r"(?:[A-Z]\.)*[A-Z]$")
_SHORT_LINE_CHARS: Final = 50  # a line that breaks earlier than any usual wrap width is a title or an item


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEVER_LAST: Final = _listed(
    "mr mrs ms dr prof st mt gen col capt lt sgt rev hon sen gov pres e.g i.e eg ie vs cf fig figs eq sec ch vol pp"
    " approx ca al viz resp dept est min max jan feb mar apr jun jul aug sep sept oct nov dec"
)
_SELDOM_LAST: Final = _listed("etc inc ltd co corp jr sr a.m p.m u.s u.k u.n ph.d b.c a.d")
_OPENERS: Final = _listed(
    "a an the this that these those it its he she they we you i in on at by for from with when where while if as but"
    " and however there after before since although once to use see"
)


def split(text: str) -> list[Span]:
    """Offsets of the sentences of `text`, in order, end exclusive, without the whitespace and list markers between.

    A heading is one sentence and keeps its `#`; fences, rules and empty lines belong to none. Linear in the text.
    """
    spans: list[Span] = []
    for start, end, whole in _blocks(text):
        spans.extend([(start, end)] if whole else _sentences(text, start, end))
    return spans


def _blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Runs of text that no sentence crosses; the flag says that the run is one sentence as it stands."""
    opened: int | None = None  # where the paragraph being gathered begins
    closed = 0
    fenced = False
    for start, end in _lines(text):
        line = text[start:end]
        fence = _FENCE.match(line) is not None
        alone = fenced or _TABLE_ROW.match(line) is not None or _HEADING.match(line) is not None
        marker = _MARKER.match(line)
        cut = fence or alone or marker or not line.strip() or _RULE.match(line)
        if opened is not None and (cut or _is_title(text[opened:closed], line)):
            yield from _trimmed(text, opened, closed, False)
            opened = None
        if fence:
            fenced = not fenced
        elif alone and (fenced or not _RULE.match(line)):
            yield from _trimmed(text, start, end, True)
        elif not cut or (marker and not _RULE.match(line)):
            opened = start + (marker.end() if marker else 0) if opened is None else opened
            closed = end
    if opened is not None:
        yield from _trimmed(text, opened, closed, False)


def _lines(text: str) -> Iterator[Span]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, end
        start = end + 1


def _is_title(gathered: str, following: str) -> bool:
    """Whether a single short line without an end is followed by a line that begins anew."""
    first = following.lstrip()[:1]
    return (
        len(gathered) < _SHORT_LINE_CHARS
        and "\n" not in gathered
        and gathered.rstrip()[-1:] not in ".,;:!?-"
        and (first.isupper() or first.isdigit())
    )


def _trimmed(text: str, start: int, end: int, whole: bool) -> Iterator[tuple[int, int, bool]]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield start, end, whole


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    codes = [match.span() for match in _CODE.finditer(text, start, end)]
    code = 0
    for ender in _ENDER.finditer(text, start, end):
        while code < len(codes) and codes[code][1] <= ender.start():
            code += 1
        inside = code < len(codes) and codes[code][0] < ender.start()
        if inside or not _ends(text, start, ender, end):
            continue
        yield from ((s, e) for s, e, _ in _trimmed(text, start, ender.end(), False))
        start = ender.end()
    yield from ((s, e) for s, e, _ in _trimmed(text, start, end, False))


def _ends(text: str, start: int, ender: re.Match[str], end: int) -> bool:
    if ender.group()[0] in "。！？":
        return True
    following = _NEXT_WORD.match(text, ender.end(), end)
    word_after = following.group(1) if following else ""
    if word_after[:1].islower():
        return False
    if ender.group()[0] != "." or ender.group().startswith(".."):
        return True
    # 40 characters reach over any abbreviation and keep the look back bounded.
    before = _LAST_WORD.search(text[max(start, ender.start() - 40) : ender.start()])
    word = before.group() if before else ""
    if word.lower() == "no":
        return not word_after[:1].isdigit()
    if word.lower() in _NEVER_LAST:
        return False
    if word.lower() in _SELDOM_LAST or _INITIAL.fullmatch(word):
        return word_after.lower() in _OPENERS
    return True
