"""Whether an answer gives away our own instructions: by the mark that stands in them, or by a long quote.

No secret lives in a prompt, so this protects nothing by itself: it shows that somebody made the model repeat what it
was told. A paraphrase or a translation is not seen.
"""

import hmac
import re
from collections.abc import Iterable
from typing import ClassVar, Final

from app.services.guardrails.patterns import Pattern, literal, pattern

QUOTED_WORDS: Final = 8  # in a row; shorter runs of an instruction are ordinary English

_VARIABLE: Final = re.compile(r"\{[a-z0-9_]+\}")
_WORD: Final = re.compile(r"\w+")


def mark_of(secret: str) -> str:
    """The installation's own mark: the same in all its processes, so that providers' prompt caches still hit."""
    return f"ph-{hmac.new(secret.encode(), b'mark of prompts', 'sha256').hexdigest()[:16]}"


def mark_pattern(mark: str) -> Pattern:
    return pattern("system_prompt", literal(mark))


class Instructions:
    """Knows the authored texts of our prompts by their runs of words."""

    name: ClassVar = "instructions"

    def __init__(self, texts: Iterable[str]) -> None:
        """Variables in `{braces}` break a run."""
        self._runs = frozenset(run for text in texts for part in _VARIABLE.split(text) for run in _runs(part))

    def quoted(self, text: str) -> bool:
        """Whether it holds eight words in a row of an instruction, whatever case and marks are between them."""
        return any(run in self._runs for run in _runs(text))


def _runs(text: str) -> Iterable[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return zip(*(words[first:] for first in range(QUOTED_WORDS)), strict=False)
