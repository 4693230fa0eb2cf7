"""The one sentence with which an answer says that the sources hold none, and how to recognise it."""

import re

REFUSAL = "The sources I have do not answer this."

# What models say instead of the sentence they were asked for. Matched at the start only: an answer that ends in a
# caveat is still an answer.
_VARIANTS = re.compile(
    r"\s*(?:i(?:'m| am) sorry,? (?:but )?)?(?:the (?:sources|passages|documents|text)(?: i have| given| provided)? "
    r"(?:do|does) not (?:answer|contain|hold|mention|provide|say)"
    r"|i (?:do not|don't|cannot|can't) (?:know|answer|find))",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether the whole answer amounts to "not in the sources"."""
    return _VARIANTS.match(text) is not None
