"""What every graph's final state tells the runner; each graph's own state extends it."""

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

from graphs.types import Citation, Message, Passage, SentenceSupport, Verdict

Validation = Literal["", "unchecked", "supported", "partly_supported", "unsupported", "no_answer", "blocked"]


class Question(TypedDict):
    """The input of every graph, as the guard has taken it in.

    `withheld` has the originals of its placeholders: an agent's checkpoint keeps them while it waits, no trace does.
    """

    question: str
    history: tuple[Message, ...]
    withheld: NotRequired[Mapping[str, str]]


class Outcome(Question, total=False):
    """Filled along the way. `answered` is False for a refusal: the run went well and the sources held no answer.

    `redacted` names the patterns that changed the answer on its way; one that is `held` leaves when it is checked.
    """

    blocked: bool
    input_verdicts: tuple[Verdict, ...]
    read_verdicts: tuple[Verdict, ...]
    output_verdicts: tuple[Verdict, ...]
    passages: tuple[Passage, ...]
    index_version: str
    embedder: str
    prompt_version: str
    answer: str
    redacted: tuple[str, ...]
    held: bool
    repairs: int
    answered: bool
    citations: tuple[Citation, ...]
    sentences: tuple[SentenceSupport, ...]
    validation: Validation
