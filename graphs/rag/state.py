"""State of the RAG graph."""

from graphs.prompts import Rendered
from graphs.rag.wording import Variants, Wording
from graphs.steps.outcome import Outcome


class RagState(Outcome, total=False):
    """`wording` is what is searched in the place of the question, `variants` what beside it.

    `reranked_by` read the best candidates again; `not_reranked` is why nobody has though it was wished for. `rendered`
    is the prompt with the passages that fitted; `passages` holds all that were retrieved.
    """

    wording: Wording
    variants: Variants
    reranked_by: str
    not_reranked: str
    rendered: Rendered
