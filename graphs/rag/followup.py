"""A follow-up as a question of its own, by its words alone: what it leaves out stands in the questions before it.

English. A question that begins with a connective, points back with a pronoun, or has no more than one word of content
is put behind the one before. Chosen on half of evals/datasets/followups.jsonl (benchmarks/followups.py): whole
questions found more than their words of content, and a longer one that points nowhere is better left alone.
"""

import re
from collections.abc import Sequence
from typing import Final

from graphs.types import Message
from graphs.words import stems

LEAST_CONTENT: Final = 2  # different words of content that make a question one of its own
LIMIT_CHARS: Final = 1_000  # of what is searched; an embedder reads no more anyway

_CONNECTIVE: Final = re.compile(
    r"(?:and|or|but|also|then|so|else|why|what about|how about|which ones?)\b", re.IGNORECASE
)
_POINTER: Final = re.compile(
    r"\b(?:it|its|they|them|their|theirs|that|this|these|those|ones?|he|she|there)\b", re.IGNORECASE
)
# A run of such signs is many words without a space: counting words says nothing of it.
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")


def standalone(question: str, asked: Sequence[str]) -> str:
    """The question, with those before it in front as far as it needs them. `asked` are the user's own, oldest first.

    A follow-up of a follow-up needs both: the questions are gone through in order.
    """
    whole = ""
    for turn in (*asked, question):
        whole = f"{whole} {turn}" if whole and leans_back(turn) and len(whole) + len(turn) < LIMIT_CHARS else turn
    return whole


def leans_back(question: str) -> bool:
    """Whether it is likely to leave out what an earlier question said."""
    if _UNSPACED.search(question):
        return False
    if _CONNECTIVE.match(question.lstrip()) or _POINTER.search(question):
        return True
    return len(set(stems(question))) < LEAST_CONTENT


def asked_before(history: Sequence[Message]) -> tuple[str, ...]:
    """The user's own questions in a history. Answers quote documents and tools, which anybody may have written: they
    never decide what is searched."""
    return tuple(turn.content for turn in history if turn.role == "user" and turn.content.strip())
