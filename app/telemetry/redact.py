"""What must not reach a log or a trace in the clear, and what must not reach a terminal at all."""

import re

REDACTED = "[redacted]"

# Our own keys, bearer tokens (whatever is in them), and the prefixes by which the usual vendors mark theirs.
_KEYS = re.compile(
    r"\bph_[A-Za-z0-9]+_[A-Za-z0-9_-]{16,}"
    r"|(?<=\b[Bb]earer )[A-Za-z0-9._~+/=-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|\bsk-[A-Za-z0-9_-]{16,}"
)

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def redact(text: str) -> str:
    """`text` with key-shaped strings replaced; everything else unchanged."""
    # A search for substrings costs a tenth of the pattern, and a loop over them more than the searches.
    if "ph_" in text or "earer " in text or "eyJ" in text or "sk-" in text:
        return _KEYS.sub(REDACTED, text)
    return text


def printable(text: str) -> str:
    """`text` without ANSI sequences, control characters (tab and newline stay) and lone surrogates."""
    if text.isascii() and text.isprintable():
        return text
    text = _CONTROL.sub("", _ANSI.sub("", text))
    return text.encode("utf-8", "replace").decode()
