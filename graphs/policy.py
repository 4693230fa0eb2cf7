"""What a run is told of how to go about: how its passages are looked for, and what becomes of a doubtful answer."""

from dataclasses import dataclass
from typing import Literal

Rewrite = Literal["off", "words", "model"]
Fusion = Literal["best", "rrf"]
Unsupported = Literal["flag", "remove", "refuse"]

LIMIT_VARIANTS = 5


@dataclass(frozen=True, slots=True)
class RetrievalPolicy:
    """`rewrite` is how a follow-up becomes a question of its own: by its words, or by a model.

    `variants` more wordings of the question are searched beside it, and `fusion` says how their rankings become one;
    `no_variants` is why there are none though they were wished for. `rerank` names who reads the best candidates again:
    "none", "maxsim", a re-rank model or a route of such.
    """

    rewrite: Rewrite = "words"
    variants: int = 0
    fusion: Fusion = "best"
    rerank: str = "none"
    no_variants: str = ""


@dataclass(frozen=True, slots=True)
class AnswerPolicy:
    """`unsupported` is what becomes of sentences that no passage supports, `refused` what is said in the place of an
    answer that a rule does not let leave; `ruled` says that there are such rules."""

    unsupported: Unsupported = "flag"
    ruled: bool = False
    refused: str = "I may not give that answer."

    def holds(self, *, grounded: bool) -> bool:
        """Whether an answer waits for its checks, because what has been read cannot be taken back."""
        return self.ruled or (grounded and self.unsupported != "flag")
