"""Names the secrets in a text, for those who refuse it where the guard of an answer would redact."""

from app.services.guardrails.patterns import SECRETS
from app.services.guardrails.stream import PatternFilter, any_opening

_OPENING = any_opening(SECRETS)


def named(text: str) -> tuple[str, ...]:
    """The names of the patterns that match, in order of first use."""
    applied = PatternFilter(SECRETS, _OPENING)
    applied.feed(text)
    applied.close()
    return applied.reasons
