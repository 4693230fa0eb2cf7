"""Models that read a question and a text together and say how well one answers the other: what they all share."""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from app.services.gateway.provider import Reranked, Reranks
from app.services.gateway.routes import Target
from graphs.errors import Invalid, UpstreamError, UpstreamTimeout
from graphs.types import Completion, Delta, ModelInfo, ModelRequest

MAX_TEXTS: Final = 1_000  # Cohere's advice for one call
ALONE_TIMEOUT_S: Final = 5.0  # of one attempt where no route says how long: a search waits for it


class Rerankers:
    """What re-rank models share as providers: they answer nobody."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        raise Invalid(f"{self.info.name} re-ranks texts and does not answer", field="model")


async def reranking(
    target: Target, question: str, texts: Sequence[str], timeout_s: float
) -> AsyncGenerator[Reranked, None]:
    """The one item of a re-ranking call, within the route's deadline."""
    assert isinstance(target.provider, Reranks)  # the plan refuses every other
    try:
        async with asyncio.timeout(timeout_s):
            reranked = await target.provider.rerank(question, texts)
    except TimeoutError as error:
        raise UpstreamTimeout(f"{target.name} took too long to re-rank") from error
    yield reranked


def placed(name: str, rows: Sequence[tuple[Any, Any]], texts: int) -> tuple[float, ...]:
    """Scores by the texts' places from (place, score) in any order, brought into [0, 1].

    Raises UpstreamError unless each text has just one score that is a number: a wrong place would put one passage's
    score under another, and nobody would see it.
    """
    scores: dict[int, float] = {}
    for place, score in rows:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < texts:
            raise UpstreamError(f"{name} scored a text that it was not given")
        if place in scores:
            raise UpstreamError(f"{name} scored one text twice")
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise UpstreamError(f"{name} gave a score that is no number")
        scores[place] = float(score)
    if len(scores) != texts:
        raise UpstreamError(f"{name} scored {len(scores)} of {texts} texts")
    return unit([scores[place] for place in range(texts)])


def unit(scores: Sequence[float]) -> tuple[float, ...]:
    """As they are where all lie in [0, 1], else taken for logits. The order stays."""
    if all(0 <= score <= 1 for score in scores):
        return tuple(scores)
    return tuple(1 / (1 + math.exp(-max(-500.0, min(score, 500.0)))) for score in scores)


def refuse_batch(question: str, texts: Sequence[str]) -> None:
    """Raises Invalid for what no re-rank model takes."""
    if not question.strip() or not texts:
        raise Invalid("there is nothing to re-rank", field="query")
    if len(texts) > MAX_TEXTS:
        raise Invalid(f"{len(texts)} texts are more than one call may re-rank ({MAX_TEXTS})", field="documents")
