"""How the passages of a run are looked for: what is made of the question, and who orders what was found."""

from dataclasses import dataclass
from typing import Literal

Rewrite = Literal["off", "words", "model"]
Fusion = Literal["best", "rrf"]

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
