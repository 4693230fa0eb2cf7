"""Whether two questions ask the same thing in other words: the check that a near vector alone cannot make.

An embedding keeps questions together that differ in the one word that decides (from and to, 2023 and 2024, did and did
not): the vector only finds the candidate. Here every word that carries meaning must be in both, and only how one asks
may differ. English word rules; text in another script is alike to nothing: the embedder gives much of it one vector.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from app.services.gateway.asked import asked_for

MAX_QUESTION_CHARS: Final = 250  # the embedder reads 256 tokens: longer texts might differ where it does not look


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# How one asks, not what for. Directions, comparisons, amounts, negations and whose it is are not among them.
_ASKING: Final = _listed(
    "a an the this that these those there here it its is are was were be been being am do does did has have had having"
    " i me my mine we us our of in on at for with to as and if then so just also really actually please okay"
    " can could may might able possible allowed will would shall should must need get got"
    " what which who whom whose how when where why"
)
_POLITE: Final = re.compile(
    r"^\s*(?:(?:hi|hello|hey|please|ok|okay|so|and|(?:can|could|would|will) you|i (?:want|need|would like) to know"
    r"|(?:tell|give|show) (?:me|us)|do you know)\b[\s,:]*)+",
    re.IGNORECASE,
)
_COUNTED: Final = re.compile(r"\bhow (?:many|much)\b|\bwhat (?:number|amount) of\b", re.IGNORECASE)
_POSSIBLE: Final = re.compile(r"\bis it possible (?:to|for)\b", re.IGNORECASE)
_WHICH: Final = re.compile(r"\bwhich\b", re.IGNORECASE)
_QUESTION_WORDS: Final = _listed("what which who whom whose how when where why")
_MODES: Final = (_listed("can could may might able possible allowed"), _listed("must should shall need"))
_PAST: Final = _listed("did was were had")
_PERSONS: Final = _listed("who whom whose")  # who beat them, whom they beat
_RELATIONS: Final = _listed("than to from into versus vs over before after by between")
_WORD: Final = re.compile(r"[^\W_]+(?:[._:/%+#'’-]+[^\W_]+)*[%+#]*")
_PLAIN: Final = frozenset(" \t\n.,?!'’‘\"“”:;()-_/%+#")
_MINUS: Final = re.compile(r"(?:^|(?<=\s))-\d")
_NOT: Final = re.compile(r"(.*?)n['’]t")


@dataclass(frozen=True, slots=True)
class _Read:
    """A question as it is compared. `meaning` are the words that decide what is asked, in order, in the singular."""

    meaning: tuple[str, ...]
    words: frozenset[str]
    kind: str
    mode: tuple[bool, ...]
    signs: tuple[str, ...]


def readable(question: str) -> bool:
    """Whether the question is short enough and in Latin letters."""
    return 0 < len(question) <= MAX_QUESTION_CHARS and all(
        not letter.isalpha() or unicodedata.normalize("NFKD", letter)[0].isascii() for letter in question
    )


def alike(asked: str, stored: str) -> bool:
    """Both ask for the same kind of thing with the same words, numbers, signs and names in the same order; a part may
    stand in front in one and at the end in the other where that cannot change who does what to whom."""
    if not (readable(asked) and readable(stored)):
        return False
    mine, theirs = _read(asked), _read(stored)
    if not mine.meaning or (mine.kind, mine.mode, mine.signs) != (theirs.kind, theirs.mode, theirs.signs):
        return False
    if mine.meaning == theirs.meaning:
        return True
    return _turned(mine.meaning, theirs.meaning) and not (_ordered(mine) or _ordered(theirs))


def _read(question: str) -> _Read:
    plain = _COUNTED.sub("how ", _POSSIBLE.sub("can ", _POLITE.sub("", question)))
    meaning: list[str] = []
    words: set[str] = set()
    for word in _WORD.findall(plain):
        low = word.lower().removesuffix("'s").removesuffix("’s")
        if (negated := _NOT.fullmatch(low)) is not None:
            meaning.append("not")
            low = {"ca": "can", "wo": "will"}.get(negated[1], negated[1])
        elif low == "cannot":
            meaning.append("not")
            low = "can"
        words.add(low)
        if low not in _ASKING or (len(word) > 1 and word.isupper()):  # US is not us
            meaning.append(_singular(low))
    return _Read(tuple(meaning), frozenset(words), asked_for(_WHICH.sub("what", plain)), _mode(words), _signs(question))


def _mode(words: set[str]) -> tuple[bool, ...]:
    """Yes or no, or something named; of the past; and, for yes or no, whether it may or must be."""
    named = not _QUESTION_WORDS.isdisjoint(words)
    return (named, not _PAST.isdisjoint(words), *(not named and not mode.isdisjoint(words) for mode in _MODES))


def _singular(word: str) -> str:
    """Without the s of a plural or a verb. Other endings stay: who is invited is not who invites."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]


def _signs(question: str) -> tuple[str, ...]:
    """Signs that are no punctuation: currencies, operators, a minus, emoji."""
    signs = [sign for sign in question if not sign.isalnum() and sign not in _PLAIN]
    return tuple(sorted(signs + ["-"] * len(_MINUS.findall(question))))


def _turned(mine: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Whether one is the other with its beginning put last: "in X, what is Y" and "what is Y in X"."""
    twice = theirs + theirs
    return len(mine) == len(theirs) and any(mine == twice[at : at + len(mine)] for at in range(1, len(mine)))


def _ordered(read: _Read) -> bool:
    """Whether what comes first decides what is asked, however the rest stands: "a to b" and "b to a"."""
    return not _PERSONS.isdisjoint(read.words) or (len(read.meaning) < 3 and not _RELATIONS.isdisjoint(read.words))
