"""What a URL carries beside the name of a page: for a model that was talked into it, a URL is a way out.

Refused is a URL that is too long, that holds a known form of secret in a usual spelling, or that holds more of what
reads like encoded data than one identifier, wherever it stands and however it is cut up. Not seen is what is said in
plain words: against that stand the list of hosts and the person who approves the call.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from math import log2
from typing import Final
from urllib.parse import unquote_plus

from yarl import URL

MAX_CODE_BITS: Final = 160  # a UUID has 128, the hash of a commit 160, a key of ours 256
MAX_HOST_CODE_BITS: Final = 80  # a host of a content network has 72
MAX_HOST_CHARS: Final = 100
MAX_LABEL_CHARS: Final = 32
MAX_LABELS: Final = 6
_SPELLINGS: Final = 3  # %252F is a slash too, for a server that decodes twice

Secrets = Callable[[str], Sequence[str]]
"""The names of the secrets that a text holds."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9]{3,}")
_CUTS: Final = re.compile(r"[^A-Za-z0-9]+")
# Where the kind of character changes inside a word, but for the capital that begins one.
_TURN: Final = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Z])(?=[0-9])|(?<=[A-Z]{2})(?=[a-z])")
_NO_WORD: Final = re.compile(r"[b-df-hj-np-tv-xz]{5}|[0-9]{9}", re.IGNORECASE)
_ALPHABETS: Final = tuple(
    (re.compile(chars), log2(size)) for chars, size in (("[0-9]+", 10), ("[0-9a-f]+|[0-9A-F]+", 16), ("[0-9a-z]+", 36))
)
_LEAST_TURNS: Final = 0.25  # a character; in words and their numbers (`py311`, `getElementById`) it is 0.2 at most


def objection(url: URL, secrets: Secrets, max_chars: int) -> str | None:
    """Why this URL may not be asked for, in words that repeat nothing of it; None where it may."""
    if len(str(url)) > max_chars:
        return f"the URL has more than {max_chars} characters"
    host = url.raw_host or ""
    labels = host.split(".")
    if len(host) > MAX_HOST_CHARS or len(labels) > MAX_LABELS or max(map(len, labels)) > MAX_LABEL_CHARS:
        return "the URL's host has more, or longer, names in it than hosts of pages have"
    parts = (host, *_decoded(url.raw_path), *_decoded(url.raw_query_string))
    found = sorted({name for part in parts for text in (part, *_joined(part)) for name in secrets(text)})
    if found:
        return f"the URL holds what looks like a secret ({', '.join(found)})"
    in_host = code_bits(host)
    after_it = code_bits(f"{_last(url.raw_path)}?{_last(url.raw_query_string)}")
    if in_host > MAX_HOST_CODE_BITS or in_host + after_it > MAX_CODE_BITS:
        return "the URL holds more of what reads like encoded data than one identifier does"
    return None


def code_bits(text: str) -> float:
    """How much its words could say that look written by a machine, at most."""
    return sum(len(token) * _bits_a_char(token) for token in _TOKEN.findall(text) if _is_code(token))


def _bits_a_char(token: str) -> float:
    return next((bits for alphabet, bits in _ALPHABETS if alphabet.fullmatch(token)), log2(62))


def _is_code(token: str) -> bool:
    if _NO_WORD.search(token):
        return True
    turns = len(_TURN.findall(token))
    return turns >= 2 and turns / len(token) >= _LEAST_TURNS


def _decoded(part: str) -> Iterator[str]:
    """As it is written, and decoded as often as a server may."""
    yield part
    for _ in range(_SPELLINGS):
        if (plain := unquote_plus(part)) == part:
            return
        yield plain
        part = plain


def _last(part: str) -> str:
    *_, plain = _decoded(part)
    return plain


def _joined(part: str) -> Iterator[str]:
    """Without what a secret could have been cut up with."""
    yield _CUTS.sub("", part)
    yield _CUTS.sub(" ", part)
