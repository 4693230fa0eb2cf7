"""The input side of the guard: what is thought of a question before anything else reads it.

Suspicious questions are flagged; nothing is changed or blocked here.
"""

from app.services.guardrails.signs import signs
from graphs.types import Verdict

NAME = "patterns"


class InputGuard:
    """Looks at one question at a time; holds nothing of it."""

    async def screen(self, text: str) -> tuple[str, tuple[Verdict, ...]]:
        """The question unchanged; `flag` with the names of the signs of injection, else `allow`."""
        reasons = signs(text)
        return text, (Verdict(NAME, "input", "flag" if reasons else "allow", reasons),)
