"""Tells which texts a value repeats, however it was cut, cased, spaced, hidden, turned round or encoded.

Work is linear in the texts and in the value, and nothing is kept beside their words. What was said anew in other words
is not found: that is why a run which has read untrusted text is held to more whatever its arguments look like.
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from typing import Any, Final
from unicodedata import normalize
from urllib.parse import unquote

from graphs.types import Match

# Chosen on one half of the attackers' goals and users' tasks and measured on the other (benchmarks/taint.py).
WHOLE_LETTERS: Final = 8  # a value of so many letters and digits is found wherever it stands, also inside a word
WORD_LETTERS: Final = 4  # a shorter one only as a word of its own
RUN_WORDS: Final = 5  # so many words in the order of the text are no accident
SHARE: Final = 0.5  # nor is this share of a value's words, if there are at least
SHARED_WORDS: Final = 4
MAX_VALUES: Final = 64  # what a call has beyond that is compared as one text
QUOTE_CHARS: Final = 80
_GRAM: Final = 3
_TURNED_LETTERS: Final = 12

_CJK: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD: Final = re.compile(f"[{_CJK}]|[^\\W_{_CJK}]+")
_INVISIBLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\U000e0000-\U000e0fff]+"
)
_TAGS: Final = {chr(0xE0000 + letter): chr(letter) for letter in range(0x20, 0x7F)}  # unseen, and some models read it
# What names somebody or something wherever it stands in a longer text: addresses, hosts, long numbers.
_NAME: Final = re.compile(
    r"[\w.+-]{1,64}@[\w.-]{3,253}|(?:[\w-]{1,63}\.){1,8}[^\W\d]{2,24}|[^\W_]{0,8}\d{6,64}[^\W_]{0,64}"
)
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_URL_SAFE: Final = str.maketrans("-_", "+/")

Gram = tuple[str, ...]


def normalised(text: str) -> str:
    """Without case, compatibility forms and characters that nobody sees."""
    if not text.isascii():
        text = _INVISIBLE.sub(_seen, normalize("NFKC", text))
    return text.casefold()


def _seen(unseen: re.Match[str]) -> str:
    return "".join(_TAGS.get(letter, "") for letter in unseen[0])


class Text:
    """A text in the forms it is compared in; `letters` are its words without anything between them."""

    def __init__(self, text: str) -> None:
        self.words = _WORD.findall(normalised(text))
        self.letters = "".join(self.words)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        return frozenset(self.words)

    def grams(self, wanted: frozenset[Gram] | set[Gram]) -> set[Gram]:
        """Those of the wanted word sequences that stand in it."""
        firsts = {gram[0] for gram in wanted}
        words = self.words
        starts = [index for index, word in enumerate(words) if word in firsts]
        return {gram for gram in (tuple(words[start : start + _GRAM]) for start in starts) if gram in wanted}


@dataclass(frozen=True, slots=True)
class Value:
    """One reading of a value that a call carries: as it stands, decoded, or backwards."""

    path: str
    match: Match
    shown: str
    text: Text

    @property
    def grams(self) -> list[Gram]:
        words = self.text.words
        return [tuple(words[start : start + _GRAM]) for start in range(len(words) - _GRAM + 1)]


@dataclass(frozen=True, slots=True)
class Found:
    """That a value repeats the text of that number; `quote` is what of it, as the call has it."""

    path: str
    number: int
    match: Match
    quote: str


def find(arguments: Mapping[str, Any], texts: Sequence[Text], known: Sequence[Text]) -> list[Found]:
    """Where values of `arguments` come from, one place each; what stands in a `known` text too comes from there."""
    values = [value for value in readings(arguments) if not _is_known(value.text, known)]
    near = _Near(values, texts, known)
    found: dict[str, Found] = {}
    for value in values:
        place = None if value.path in found else _exact(value, texts, known) or near.of(value)
        if place is not None:
            found[value.path] = place
    return list(found.values()) or _pieced_together(arguments, texts, known)


def readings(arguments: Mapping[str, Any]) -> Iterator[Value]:
    """Every value of the call, each as it stands first."""
    for path, shown in _bounded(_leaves(arguments, "")):
        yield Value(path, "exact", shown, Text(shown))
        for decoded in decodings(shown):
            yield Value(path, "decoded", decoded, Text(decoded))
        turned = Text(shown[::-1])
        if len(turned.letters) >= _TURNED_LETTERS:
            yield Value(path, "reversed", shown, turned)


def decodings(text: str) -> Iterator[str]:
    """What is written in it in base64, hexadecimal, with percent signs or as HTML entities, one level deep each."""
    plain = unescape(unquote(text)) if "%" in text or "&" in text else text
    if plain != text:
        yield plain
    for token in _ENCODED.findall(plain):
        if _HEX.fullmatch(token):
            yield from _printable(bytes.fromhex(token))
        bare = token.rstrip("=").translate(_URL_SAFE)
        with suppress(NotBase64):
            yield from _printable(b64decode(bare + "=" * (-len(bare) % 4)))


def _printable(data: bytes) -> Iterator[str]:
    text = data.decode("utf-8", "replace")
    if "\ufffd" not in text and "".join(text.split()).isprintable():
        yield text


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Texts and long numbers with their paths; names of keys too, where the tool takes any."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            inner = f"{path}/{key}" if path else str(key)
            if path:
                yield inner, str(key)
            yield from _leaves(item, inner)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}/{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, str(value)


def _bounded(leaves: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    each = list(leaves)
    if len(each) <= MAX_VALUES:
        return each
    return [*each[:MAX_VALUES], ("and more", "\n".join(shown for _, shown in each[MAX_VALUES:]))]


def _is_known(text: Text, known: Sequence[Text]) -> bool:
    """Whether somebody trusted has said it: in these words, or all of a few words somewhere."""
    if any(text.letters in other.letters for other in known):
        return True
    return len(text.words) <= _GRAM and all(any(word in other.vocabulary for other in known) for word in text.words)


def _exact(value: Value, texts: Sequence[Text], known: Sequence[Text]) -> Found | None:
    letters = value.text.letters
    spans = [(letters, value.shown)] if len(letters) >= WHOLE_LETTERS else []
    for match in _NAME.finditer(normalised(value.shown)) if value.match != "reversed" else ():
        name = "".join(_WORD.findall(match[0]))
        if len(name) >= WHOLE_LETTERS - 2 and not any(name in other.letters for other in known):
            spans.append((name, match[0]))
    for number, text in enumerate(texts):
        for span, shown in spans:
            if span in text.letters:
                return Found(value.path, number, value.match, shown[:QUOTE_CHARS])
        if WORD_LETTERS <= len(letters) < WHOLE_LETTERS and letters in text.vocabulary:
            return Found(value.path, number, value.match, value.shown[:QUOTE_CHARS])
    return None


def _pieced_together(arguments: Mapping[str, Any], texts: Sequence[Text], known: Sequence[Text]) -> list[Found]:
    """What stands in one piece in a text and was spread over the values of the call."""
    leaves = [(path, shown) for path, shown in _bounded(_leaves(arguments, "")) if shown]
    joined = Text("".join(shown for _, shown in leaves))
    if len(leaves) < 2 or len(joined.letters) < _TURNED_LETTERS or _is_known(joined, known):
        return []
    path, quote = " + ".join(path for path, _ in leaves), " + ".join(shown for _, shown in leaves)
    numbers = [number for number, text in enumerate(texts) if joined.letters in text.letters]
    return [Found(path[:QUOTE_CHARS], number, "near", quote[:QUOTE_CHARS]) for number in numbers[:1]]


class _Near:
    """Sequences of words that values have in common with texts and with no known one, looked for once for all."""

    def __init__(self, values: Sequence[Value], texts: Sequence[Text], known: Sequence[Text]) -> None:
        wanted = {gram for value in values for gram in value.grams}
        for text in known:
            wanted -= text.grams(wanted)
        self._first: dict[Gram, int] = {}
        for number, text in enumerate(texts):
            for gram in text.grams(wanted):
                self._first.setdefault(gram, number)

    def of(self, value: Value) -> Found | None:
        """The text that most of its words come from, if there are enough of them."""
        words, grams = value.text.words, value.grams
        covered = [False] * len(words)
        counts: dict[int, int] = {}
        for start, gram in enumerate(grams):
            if (number := self._first.get(gram)) is not None:
                covered[start : start + _GRAM] = [True] * _GRAM
                counts[number] = counts.get(number, 0) + 1
        if not counts:
            return None
        start, length = _longest(covered)
        shared = sum(covered)
        if length < RUN_WORDS and (shared < SHARED_WORDS or shared < SHARE * len(words)):
            return None
        match: Match = "near" if value.match == "exact" else value.match
        quote = " ".join(words[start : start + length])[:QUOTE_CHARS]
        return Found(value.path, max(counts, key=lambda number: counts[number]), match, quote)


def _longest(covered: Sequence[bool]) -> tuple[int, int]:
    """Start and length of the longest row of true."""
    best, start, length = (0, 0), 0, 0
    for index, here in enumerate(covered):
        start, length = (start if length else index, length + 1) if here else (index, 0)
        if length > best[1]:
            best = (start, length)
    return best
