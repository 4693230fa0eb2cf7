"""The guard of a run: screens questions (`input.py`), cleans answers, measures support.

Patterns and a small model of ours, nothing else: no network, no large model.
"""

from collections.abc import Collection, Sequence

from app.services.guardrails.input import InputGuard
from app.services.guardrails.markup import markup_patterns
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.stream import PatternFilter, any_opening
from app.services.guardrails.support import Embedder, SupportModel
from graphs.types import Passage, Verdict

NAME = "patterns"


class PatternGuard:
    """Implements `graphs.context.Guard`."""

    def __init__(self, embedder: Embedder, image_hosts: Collection[str] = ()) -> None:
        """`image_hosts` are host names, without port, whose images may appear in answers."""
        self._input = InputGuard()
        self._patterns = (*SECRETS, *markup_patterns(frozenset(host.lower() for host in image_hosts)))
        self._opening = any_opening(self._patterns)
        self._support = SupportModel(embedder)

    async def screen(self, text: str) -> tuple[str, tuple[Verdict, ...]]:
        """The question as it may go on, and why."""
        return await self._input.screen(text)

    async def check(self, text: str) -> tuple[str, tuple[Verdict, ...]]:
        """The answer without secrets and foreign images; `redact` with the names of the patterns, else `allow`."""
        applied = self.stream_filter()
        clean = applied.feed(text) + applied.close()
        return clean, (Verdict(NAME, "output", "redact" if applied.reasons else "allow", applied.reasons),)

    def stream_filter(self) -> PatternFilter:
        """A filter for one answer; what it lets out, joined, is what `check` would give."""
        return PatternFilter(self._patterns, self._opening)

    async def support(self, sentences: Sequence[str], passages: Sequence[Passage]) -> list[list[float]]:
        """How far each passage supports each sentence, in [0, 1]; shape (sentences, passages)."""
        return await self._support.score(sentences, passages)

    @property
    def support_threshold(self) -> float:
        """From where a sentence counts as supported; measured by benchmarks/train_support.py."""
        return self._support.threshold
