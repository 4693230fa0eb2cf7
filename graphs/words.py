"""The words of a text as the answerer and the guard compare them: stems, numbers, identifiers. English."""

import re
from typing import Final

_WORD: Final = re.compile(r"[^\W_]+(?:['’]s\b)?", re.UNICODE)
_NUMBER: Final = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?=\D|$)")
_CODE: Final = re.compile(r"`([^`\n]{1,80})`")
# snake_case, dotted.names, /paths, --flags, UPPER_CASE, CamelCase, HTTP429, v1.2: names that match exactly or not.
# Their parts are bounded, since unbounded ones took 40 s for 30,000 letters without a space.
_IDENTIFIER: Final = re.compile(
    r"--?[a-zA-Z][\w-]+|/?[A-Za-z0-9]{1,64}(?:[_./:][A-Za-z0-9*{}]{1,64})+"
    r"|[A-Z]{2}[A-Z0-9]{0,64}\b|[A-Z]?[a-z]{1,64}[A-Z]\w+|[A-Za-z]{1,64}\d\w*"
)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# "x:y" puts y in the place of the ending x; the first that fits is taken.
_SUFFIXES: Final = tuple(
    rule.partition(":")[::2]
    for rule in _listed(
        "ational:ate ization:ize fulness:ful iveness:ive ousness:ous ations:ate ation:ate ments: ities:ity ingly:"
        " ment: ness: edly: sses:ss ies:y ied:y ing: ers: est: ed: er: es: ly: s:"
    )
)
_TO_TWENTY: Final = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty"
)
_NUMERALS: Final = {word: str(value) for value, word in enumerate(_TO_TWENTY)} | {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "hundred": "100", "thousand": "1000",
}  # fmt: skip

STOP_WORDS: Final = frozenset(
    _listed(
        "a about after all also am an and any are as at be because been before being between both but by can could did"
        " do does doing down during each for from further had has have having he her here him his how i if in into is"
        " it its itself just me more most my no nor not now of off on once only or other our out over own same she"
        " should so some such than that the their them then there these they this those through to too under until up"
        " very was we were what when where which while who whom whose why will with would you your many much"
    )
)


def words(text: str) -> list[str]:
    """Lower-case words in order; possessive endings dropped, punctuation and underscores separate."""
    return [word.removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text.lower())]


def stem(word: str) -> str:
    """A word without its commonest endings; numerals become digits. Not linguistics: equal stems, comparable words."""
    if word in _NUMERALS:
        return _NUMERALS[word]
    for suffix, replacement in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not (suffix == "s" and word.endswith("ss")):
            word = word[: -len(suffix)] + replacement
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] in "ey" else word


def stems(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order, repeats kept."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


def numbers(text: str) -> frozenset[str]:
    """Numbers of a text without thousands separators; numerals up to twenty count as digits."""
    figures = (match.replace(",", "").rstrip(".") for match in _NUMBER.findall(text))
    return frozenset(figures) | {_NUMERALS[word] for word in words(text) if word in _NUMERALS}


def identifiers(text: str) -> frozenset[str]:
    """Names that must match exactly: code spans, paths, flags, settings, dotted and camel-case names; lower case."""
    found = {match.strip().lower() for match in _CODE.findall(text)}
    return frozenset(found | {match.rstrip(".:/").lower() for match in _IDENTIFIER.findall(text)})
