"""Reads text that is written so as not to be read: encoded, turned round, spelled with digits or spaced out.

A view is only made where the text has the form of that disguise. What it decodes to is judged by others: encoded text
is ordinary in tickets and logs, and says nothing by itself. Everything is bounded by `MOST_CHARS`.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

MOST_CHARS: Final = 20_000  # of a text; what lies beyond is not decoded
MOST_RUNS: Final = 16  # encoded runs that are looked into
LEAST_CHARS: Final = 12  # of what is decoded: less holds no instruction
ENOUGH: Final = 3  # common words that a text has to show to be taken as it stands

_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{20,8000}={0,2}")
_BASE32: Final = re.compile(r"\b[A-Z2-7]{24,8000}={0,6}")
_HEX: Final = re.compile(r"\b(?:[0-9a-fA-F]{2}[ :]?){12,4000}")
_BINARY: Final = re.compile(r"\b(?:[01]{8}\s?){12,2000}")
_PERCENT: Final = re.compile(r"%[0-9a-fA-F]{2}")
_SPACED: Final = re.compile(r"(?:\b\w[ .\-_]){4,400}\w\b")
_LEET: Final = re.compile(r"[A-Za-z][013457@$][A-Za-z]")
_WORD: Final = re.compile(r"[a-z]{3,}")
_PLAIN: Final = str.maketrans("013457@$", "oieastas")
# Frequent in English instructions; a text turned round or by 13 letters shows them only when it is turned back, and
# then two at least, since one can be an accident.
_COMMON: Final = frozenset(
    ("the", "and", "all", "you", "your", "ignore", "instructions", "previous",
     "system", "prompt", "tell", "now", "reveal", "with")
)  # fmt: skip


def unveiled(text: str) -> Iterator[str]:
    """What the text may have been before it was disguised; nothing for plain text."""
    text = text[:MOST_CHARS]
    for name, form in (("base64", _BASE64), ("base32", _BASE32), ("hex", _HEX), ("binary", _BINARY)):
        for run, _ in zip(form.finditer(text), range(MOST_RUNS), strict=False):
            decoded = _decoded(name, run.group())
            if decoded is not None:
                yield decoded
    if _PERCENT.search(text):
        yield unquote(text)
    if _SPACED.search(text):
        yield _SPACED.sub(lambda run: re.sub(r"[ .\-_]", "", run.group()), text)
        yield re.sub(r"(?<=\b\w)[ .\-_](?=\w\b)", "", re.sub(r"[ ]{2,}", "\n", text)).replace("\n", " ")
    if _LEET.search(text):
        yield text.translate(_PLAIN)
    if (plain := _common(text)) < ENOUGH:
        yield from (t for t in (text[::-1], codecs.encode(text, "rot13")) if _common(t) >= max(2, 2 * plain))


def _decoded(name: str, run: str) -> str | None:
    try:
        match name:
            case "base64":
                body = run.rstrip("=").replace("-", "+").replace("_", "/")
                content = base64.b64decode(body + "=" * (-len(body) % 4))
            case "base32":
                body = run.rstrip("=")
                content = base64.b32decode(body + "=" * (-len(body) % 8))
            case "hex":
                content = bytes.fromhex(re.sub(r"[ :]", "", run))
            case _:
                bits = re.sub(r"\s", "", run)
                content = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) - 7, 8))
        decoded = content.decode()
    except (binascii.Error, ValueError):
        return None
    readable = sum(sign.isprintable() or sign in "\n\t" for sign in decoded)
    return decoded if len(decoded) >= LEAST_CHARS and readable >= 0.95 * len(decoded) else None


def _common(text: str) -> int:
    return sum(word in _COMMON for word in _WORD.findall(text.lower()))
