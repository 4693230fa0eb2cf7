"""The output side of the guard under one policy: patterns over every text that leaves, rules over whole answers."""

from collections.abc import Sequence

from app.services.guardrails.find import find
from app.services.guardrails.instructions import Instructions
from app.services.guardrails.patterns import Pattern
from app.services.guardrails.rulebook import RuleBook
from app.services.guardrails.stream import PatternFilter, any_opening
from graphs.rules import Answered
from graphs.types import Verdict

NAME = "patterns"


class OutputGuard:
    """Holds nothing of any answer, so that one serves all runs and calls of the policy."""

    def __init__(
        self,
        patterns: Sequence[Pattern],
        rules: RuleBook | None = None,
        instructions: Instructions | None = None,
        *,
        flagged: Sequence[Pattern] = (),
    ) -> None:
        """What has the form of `flagged` stays and is told."""
        self._flagged = tuple(flagged)
        self._patterns, self._opening = tuple(patterns), any_opening(patterns)
        self._rules, self._instructions = rules or RuleBook(()), instructions or Instructions(())

    def check(self, text: str, redacted: Sequence[str] = ()) -> tuple[str, tuple[Verdict, ...]]:
        """The text without what the patterns replace; `redact` with the names of these and of `redacted`.

        Long quotes from our own instructions are flagged: they hold no secret, and documents may quote them too.
        """
        applied = self.stream_filter()
        clean = applied.feed(text) + applied.close()
        reasons = tuple(dict.fromkeys((*redacted, *applied.reasons)))
        verdicts = [Verdict(NAME, "output", "redact" if reasons else "allow", reasons)]
        if kinds := tuple(dict.fromkeys(found.kind for found in find(self._flagged, clean))):
            verdicts.append(Verdict(NAME, "output", "flag", kinds))
        if self._instructions.quoted(clean):
            verdicts.append(Verdict(Instructions.name, "output", "flag", ("quoted",)))
        return clean, tuple(verdicts)

    def stream_filter(self) -> PatternFilter:
        """A filter for one answer; what it lets out, joined, is what `check` would give."""
        return PatternFilter(self._patterns, self._opening)

    async def judge(self, answered: Answered) -> tuple[Verdict, ...]:
        """What the rules think of a whole answer; `block` where it may not leave."""
        return await self._rules.judge(answered)
