"""The extractive answerer: a provider that answers from the passages alone, by quoting.

Two small trained models: one scores every sentence as an answer to the question, one says how likely it is that any of
them is. It reads `ModelRequest.question` and `.grounding` and nothing else, joins nothing, writes no word of its own
except the refusal. English; MODEL_CARD.md has what was measured.
"""

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.reading import Embedder, Rarity, Reader
from app.scorer import Scorer, read_weights
from app.services.gateway.evidence import (
    ANSWER_FEATURES,
    SENTENCE_FEATURES,
    Candidate,
    answer_features,
    candidates,
    sentence_features,
)
from graphs.errors import UpstreamError
from graphs.refusal import REFUSAL
from graphs.sentences import split
from graphs.types import Completion, Delta, ModelInfo, ModelRequest, Passage, Usage

WEIGHTS_FILE = Path(__file__).with_name("extractive_weights.json")
MOST_SENTENCES = 3
ALIKE: Final = 0.92  # cosine from which a second sentence says the same again
_TOKEN: Final = re.compile(r"\w{1,8}|[^\w\s]")  # long words count more than once, as they do for real tokenizers


@dataclass(frozen=True, slots=True)
class Choice:
    """What the answerer would quote, best first, and the probability that the passages hold an answer."""

    probability: float
    chosen: tuple[Candidate, ...]


class ExtractiveAnswerer:
    """Implements `app.services.gateway.provider.Provider`."""

    def __init__(self, embedder: Embedder, weights: Path = WEIGHTS_FILE) -> None:
        trained = read_weights(weights)
        self.threshold: float = float(trained["threshold"])
        self._second_share = float(trained["second_share"])
        self._sentences = Scorer.parse(trained["sentences"], SENTENCE_FEATURES)
        self._answers = Scorer.parse(trained["answers"], ANSWER_FEATURES)
        self._reader = Reader(embedder)
        self._rarity = Rarity.load()
        self._closed = False
        self._info = ModelInfo(
            name="extractive",
            version=str(trained["version"]),
            provider="extractive",
            context_tokens=32_768,
            max_output_tokens=1_024,
            native_tools=False,
            extractive=True,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    def count_tokens(self, text: str) -> int:
        """An estimate: this model has no tokenizer."""
        return len(_TOKEN.findall(text))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        """The quoted sentences one by one, or the refusal with `finish_reason` "no_answer"."""
        if self._closed:
            raise UpstreamError("the extractive answerer is closed")
        choice = await self.choose(request.question, request.grounding)
        answered = choice.probability >= self.threshold
        pieces = _joined([each.sentence.text for each in _in_order(choice.chosen)]) if answered else [REFUSAL]
        for piece in pieces:
            yield Delta(piece)
        text = "".join(pieces)
        read = [request.question, *(passage.text for passage in request.grounding)]
        yield Completion(
            text=text,
            model=self._info.name,
            model_version=self._info.version,
            provider=self._info.provider,
            usage=Usage(sum(map(self.count_tokens, read)), self.count_tokens(text), estimated=True),
            finish_reason="stop" if answered else "no_answer",
        )

    async def choose(self, question: str, passages: Sequence[Passage]) -> Choice:
        """Up to three sentences with the probability that they answer; probability 0 when there is nothing to quote."""
        (asked,), readings = await self._reader.read([question], [passage.text for passage in passages])
        found = candidates(readings)
        if not found or not asked.stems:
            return Choice(0.0, ())
        rows = sentence_features(asked, passages, readings, found, self._rarity)
        logits = self._sentences.logit(rows)
        overall = self._answers.probability(answer_features(asked, readings, rows, logits, self._rarity))
        return Choice(float(overall[0]), pick(found, 1.0 / (1.0 + np.exp(-logits)), self._second_share))

    async def close(self) -> None:
        self._closed = True


def pick(found: Sequence[Candidate], scores: NDArray[np.float64], second_share: float) -> tuple[Candidate, ...]:
    """The best sentence and up to two more that score nearly as well (`second_share` of it) and say something else."""
    chosen: list[Candidate] = []
    ranked = np.argsort(-scores, kind="stable")
    for index in ranked[: 2 * MOST_SENTENCES]:
        vector = found[index].sentence.vector
        if chosen and scores[index] < second_share * scores[ranked[0]]:
            break
        if all(float(vector @ each.sentence.vector) < ALIKE for each in chosen):
            chosen.append(found[index])
    return tuple(chosen[:MOST_SENTENCES])


def _in_order(chosen: Sequence[Candidate]) -> list[Candidate]:
    """The best sentence's passage first, and within a passage as it was written."""
    passages = list(dict.fromkeys(each.passage for each in chosen))
    return sorted(chosen, key=lambda each: (passages.index(each.passage), each.place))


def _joined(sentences: Sequence[str]) -> list[str]:
    """The sentences with what goes between them, so that splitting the joined text gives the same sentences back."""
    pieces: list[str] = []
    for sentence in sentences:
        if pieces:
            text = f"{pieces[-1]} {sentence}"
            apart = [text[start:end] for start, end in split(text)] == [pieces[-1].strip(), sentence]
            sentence = (" " if apart else "\n\n") + sentence
        pieces.append(sentence)
    return pieces
