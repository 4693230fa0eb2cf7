"""How a search of a collection goes: by the configuration, by what its caller wishes, by what the model can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.config.load import EMBEDDED
from app.config.schema import RetrievalConfig
from app.names import HANDBOOK
from app.records import SearchWish
from app.services.gateway.meter import MeteredGateway
from app.services.retrieval.rerank import OWN, Named, Reranker
from graphs.errors import Invalid
from graphs.policy import RetrievalPolicy

NO_WISH: Final = SearchWish()


def policy_of(
    config: RetrievalConfig, collection: str | None, gateway: MeteredGateway, wish: SearchWish = NO_WISH
) -> RetrievalPolicy:
    """The policy of one search; what is wished for goes before what is configured.

    The embedded models word nothing: the small one's questions are worse than the user's own, and the extractive one
    writes none. Raises Invalid for a re-ranker that nobody has.
    """
    search = config.of(HANDBOOK if collection is None else collection)
    rewrite = wish.rewrite or search.rewrite
    variants = search.variants if wish.variants is None else wish.variants
    rerank = wish.rerank or search.rerank
    reranker(gateway, rerank)
    embedded = gateway.describe(task="rewrite").name in EMBEDDED
    return RetrievalPolicy(
        rewrite="off" if rewrite == "off" else "words" if embedded or rewrite == "words" else "model",
        variants=0 if embedded else variants,
        fusion=wish.fusion or search.fusion,
        rerank=rerank,
        no_variants="the embedded models write no other wordings" if embedded and variants else "",
    )


def reranker(gateway: MeteredGateway, name: str) -> Reranker | None:
    """The model of that name at the cost of the gateway's payer; None where the name stands for none."""
    if name in OWN:
        return None
    if not gateway.reranks(name):
        raise Invalid(f"there is no re-rank model or route named {name!r}", field="rerank")
    return ModelReranker(gateway, name)


def rerankers(gateway: MeteredGateway) -> Named:
    """All of them, as a search asks for them."""

    def named(name: str) -> Reranker:
        found = reranker(gateway, name)
        assert found is not None  # a search asks for those alone that are models
        return found

    return named


@dataclass(frozen=True, slots=True)
class ModelReranker:
    """A re-rank model of the gateway, as a search sees it."""

    gateway: MeteredGateway
    name: str

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        return list(await self.gateway.rerank(question, texts, self.name))
