"""State of the RAG graph."""

from graphs.prompts import Rendered
from graphs.steps.outcome import Outcome


class RagState(Outcome, total=False):
    """`rendered` is the prompt with the passages that fitted; `passages` holds all that were retrieved."""

    rendered: Rendered
