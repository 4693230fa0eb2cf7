"""Insults, threats and calls to self-harm in English, by a short list: a rule to be named in `answers.rules`.

    answers: {rules: ["app.services.guardrails.abuse:no_abuse"]}

It is a list and no measure of toxicity: no data at hand allows to say how much it misses, so nobody gets it unasked.
It sees what is said to the reader ("you are ..."), not hatred of groups, irony, other languages or other spellings, and
a quote counts like a word of the answer's own.
"""

import re
from typing import Final

from graphs.rules import Answered, rule

_INSULTS: Final = (
    "stupid|idiot(?:ic)?|moron(?:ic)?|imbecile|worthless|pathetic|disgusting|dumb|loser|scum|trash|garbage|useless"
)
_FORMS: Final = {
    "insult": rf"\byou(?:'re| are)(?: \w+){{0,2}} (?:{_INSULTS})\b|\byou(?: \w+)? (?:idiot|moron|imbecile|scum)s?\b",
    "dismissal": r"\b(?:shut up|go to hell|screw you|fuck (?:you|off)|drop dead)\b",
    "threat": r"\bi(?:'ll| will| am going to| want to) (?:kill|hurt|destroy) you\b|\byou (?:will|shall) die\b",
    "self-harm": r"\b(?:kill|hang|hurt) yourself\b|\byou should (?:die|end (?:it all|your life))\b|\bkys\b",
}
_ABUSE: Final = {name: re.compile(form, re.IGNORECASE) for name, form in _FORMS.items()}


@rule("no_abuse")
def no_abuse(asked: Answered) -> str | None:
    """The kinds of abuse in the answer."""
    found = [name for name, form in _ABUSE.items() if form.search(asked.answer)]
    return ", ".join(found) or None
