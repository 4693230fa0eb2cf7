"""What kind of answer a question asks for, and whether a sentence holds one of that kind. English cue words."""

import re
from collections.abc import Callable
from typing import Final

from app.reading import Sentence


def _cue(*choices: str) -> re.Pattern[str]:
    return re.compile("|".join(choices), re.IGNORECASE)


_NUMBER: Final = _cue(
    r"\d+",
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million|billion)\b",
    r"\b(?:half|once|twice|several|no limit|unlimited)\b",
)
_TIME: Final = _cue(
    r"\b\d{4}\b|\b\d0s\b|\bcentur",
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\b",
    r"\b(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b",
    r"\b(?:after|before|until|when|once|every|at)\b",
    r"\b(?:second|minute|hour|day|week|month|year|decade)s?\b",
)
_REASON: Final = _cue(
    r"\b(?:because|due to|since|so that|in order to|therefore|thus|caused?|reason|as a result|otherwise)\b",
    r"\bto (?:avoid|prevent|keep|protect|make|allow)\b",
)
_MANNER: Final = _cue(
    r"`|\b(?:by \w+ing|use|using|run|set|call|send|through|via|with)\b",
    r"^(?:create|open|set|run|check|stop|start|add|remove|restart|rotate|raise|export|press|choose|click|give|delete)\b",
)
_NAME: Final = re.compile(r"\b[A-Z][\w'’-]+")

# The first rule that fits says what is asked for.
_ASKS: Final = {
    "count": _cue(
        r"\bhow (?:many|much|long|often|large|big|old|far|high|fast|few|tall)\b",
        r"\bwhat (?:number|percent\w*|amount|limit|size|port|rate|share)\b",
    ),
    "time": _cue(
        r"^when (?:did|was|were|is|are|will|does|do|has|had|can)\b",
        r"\b(?:what|which) (?:year|day|date|month|century|decade|time)\b",
    ),
    "person": _cue(r"\bwho(?:m|se)?\b", r"\b(?:what|which) (?:person|player|team|company|king|queen|president)\b"),
    "place": _cue(
        r"\bwhere\b",
        r"\b(?:what|which) (?:city|country|state|place|location|region|area|river|folder|file|path)\b",
    ),
    "reason": _cue(r"\bwhy\b", r"\bwhat (?:\w+ )?(?:reason|cause|purpose)"),
    "manner": _cue(
        r"\bhow (?:do|does|can|should|to|is|are|did|was|would)\b", r"\bwhat (?:must|should) (?:i|you|we) do\b"
    ),
}
KINDS: Final = tuple(_ASKS)


def asked_for(question: str) -> str:
    """One of KINDS, or "" for a question that any sentence may answer."""
    return next((kind for kind, rule in _ASKS.items() if rule.search(question)), "")


def fits(kind: str, question: Sentence, sentence: Sentence) -> bool:
    """Whether the sentence holds something of that kind; numbers and names only if the question did not bring them."""
    return _FITS[kind](question, sentence)


def _has_number(question: Sentence, sentence: Sentence) -> bool:
    return any(f" {found.lower()} " not in question.plain for found in _NUMBER.findall(sentence.text))


def _has_name(question: Sentence, sentence: Sentence) -> bool:
    """A capital at the start of a sentence makes no name, unless the word comes again."""
    opening = sentence.text.split(" ", 1)[0]
    return any(
        f" {name.lower()} " not in question.plain and (name != opening or sentence.text.count(name) > 1)
        for name in _NAME.findall(sentence.text)
    )


_FITS: Final[dict[str, Callable[[Sentence, Sentence], bool]]] = {
    "count": _has_number,
    "time": lambda question, sentence: _TIME.search(sentence.text) is not None,
    "person": _has_name,
    "place": lambda question, sentence: _has_name(question, sentence) or bool({"`", "/"} & set(sentence.text)),
    "reason": lambda question, sentence: _REASON.search(sentence.text) is not None,
    "manner": lambda question, sentence: _MANNER.search(sentence.text) is not None,
}
