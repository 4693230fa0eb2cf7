"""A second, dearer look at the best candidates: the port, and late interaction over the embedder's own tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from app.services.retrieval.embedder import Embedder, Vectors
from graphs.errors import Invalid

OWN = frozenset(("none", "maxsim"))  # names that stand for no model
RERANKED = 20  # candidates at most: each costs a pass of the embedder (about 50 ms), 20 of them already a second


class Reranker(Protocol):
    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers, in [0, 1], in the order given.

        Raises UpstreamError, QuotaExhausted, Forbidden where a model was to read them and did not.
        """
        ...


Named = Callable[[str], Reranker]
"""A re-ranker that is not the embedder's own, by its name. Raises Invalid for a name that nobody has."""


@runtime_checkable
class TokenEmbedder(Protocol):
    """An embedder that also shows a unit vector for each token it read."""

    async def token_vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """For each text shape (its tokens, dimensions)."""
        ...


class MaxSim:
    """The mean, over the question's tokens, of the cosine to the nearest token of the text.

    Source: ColBERT, Khattab and Zaharia, SIGIR 2020. The embedder was not trained for it.
    """

    def __init__(self, embedder: TokenEmbedder) -> None:
        self._embedder = embedder

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        asked, *read = await self._embedder.token_vectors([question, *texts])
        return [max_sim(asked, tokens) for tokens in read]


def max_sim(asked: Vectors, tokens: Vectors) -> float:
    if not len(asked) or not len(tokens):
        return 0.0
    return float(min(max((asked @ tokens.T).max(axis=1).mean(), 0.0), 1.0))


def unnamed(name: str) -> Reranker:
    """Where there are no others."""
    raise Invalid(f"nothing re-ranks by the name {name!r}", field="rerank")


def rerankers(embedder: Embedder) -> Mapping[str, Reranker]:
    """Those that can work with this embedder, by name."""
    return {"maxsim": MaxSim(embedder)} if isinstance(embedder, TokenEmbedder) else {}
