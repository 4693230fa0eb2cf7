"""The guard of a run: screens questions (`input.py`), cleans answers, measures support.

Patterns and a small model of ours, nothing else: no network, no large model.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from typing import Any

from app.config.guards import GuardRules
from app.placeholders import Placeholders
from app.services.guardrails.input import Detectors, Intake
from app.services.guardrails.markup import markup_patterns
from app.services.guardrails.output import OutputGuard
from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.stream import PatternFilter
from app.services.guardrails.support import Embedder, SupportModel
from graphs.rules import Answered
from graphs.types import Message, Passage, Stage, Verdict


class PatternGuard:
    """Implements `graphs.context.Guard`."""

    def __init__(self, embedder: Embedder, image_hosts: Collection[str] = ()) -> None:
        """`image_hosts` are host names, without port, whose images may appear in answers."""
        self._detectors = Detectors(embedder)
        self._intake = Intake(self._detectors)
        self._output = OutputGuard((*SECRETS, *markup_patterns(frozenset(host.lower() for host in image_hosts))))
        self._support = SupportModel(embedder)

    async def ready(self, rules: GuardRules) -> None:
        """Load what these rules look with."""
        await self._detectors.ready(rules.input)

    def taking_in(self, rules: GuardRules, run_id: str, *, embeds: bool) -> "PatternGuard":
        """The same guard for the questions of one run, as its tenant's policy has it."""
        other = copy(self)
        other._intake = Intake(self._detectors, rules, run_id, embeds=embeds)
        return other

    async def take_in(self, question: str, history: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
        """Both as the model may see them."""
        return await self._intake.take_in(question, history)

    async def screen(self, text: str) -> tuple[str, tuple[Verdict, ...]]:
        """The question as it may go on, and why."""
        return await self._intake.screen(text)

    async def screen_read(self, stage: Stage, texts: Sequence[str]) -> tuple[Verdict, ...]:
        """What is thought of passages or tool results; it stops nothing."""
        return await self._intake.screen_read(stage, texts)

    @property
    def withheld(self) -> Placeholders | None:
        """None where policy redacts nothing."""
        return self._intake.withheld if self._intake.redacts else None

    @property
    def keeps_originals(self) -> bool:
        """Whether conversations hold what the user wrote, and not its placeholders."""
        return self._intake.rules.storage == "original"

    def traced(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """A span's attributes as policy lets them be written down."""
        return self._intake.traced(attributes)

    @property
    def safe_answer(self) -> str:
        return self._intake.rules.safe_answer

    def answering(self, output: OutputGuard) -> "PatternGuard":
        """The same guard with another output side, as a tenant's policy has it."""
        other = copy(self)
        other._output = output
        return other

    async def check(self, text: str, redacted: Sequence[str] = ()) -> tuple[str, tuple[Verdict, ...]]:
        """The answer without what the output patterns replace, and why; `redacted` is what its stream has replaced."""
        return self._output.check(text, redacted)

    async def judge(self, answered: Answered) -> tuple[Verdict, ...]:
        """What the tenant's rules think of the whole answer."""
        return await self._output.judge(answered)

    def stream_filter(self) -> PatternFilter:
        """A filter for one answer; what it lets out, joined, is what `check` would give."""
        return self._output.stream_filter()

    async def support(self, sentences: Sequence[str], passages: Sequence[Passage]) -> list[list[float]]:
        """How far each passage supports each sentence, in [0, 1]; shape (sentences, passages)."""
        return await self._support.score(sentences, passages)

    @property
    def support_threshold(self) -> float:
        """From where a sentence counts as supported; measured by benchmarks/train_support.py."""
        return self._support.threshold
