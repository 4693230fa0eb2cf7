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

from app.reading import Embedder, Rarity, Reader, Reading
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
MOST_LED_IN: Final = 8
ALIKE: Final = 0.92  # cosine from which a second sentence says the same again
_ITEM: Final = re.compile(r"[-*+•]|\d[.)]|```|\A\n[ \t]*\Z")  # what stands before a list item or a line of code
_TOKEN: Final = re.compile(r"\w{1,8}|[^\w\s]")  # long words count more than once, as they do for real tokenizers


@dataclass(frozen=True, slots=True)
class Choice:
    """What the answerer would quote, and the probability that the passages hold an answer.

    `chosen` are the sentences that were picked, best first; `quotes` is what would be said, in order.
    """

    probability: float
    chosen: tuple[Candidate, ...] = ()
    quotes: tuple[str, ...] = ()


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
        pieces = _joined(choice.quotes) if answered else [REFUSAL]
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
            return Choice(0.0)
        rows = sentence_features(asked, passages, readings, found, self._rarity)
        logits = self._sentences.logit(rows)
        overall = self._answers.probability(answer_features(asked, readings, rows, logits, self._rarity))
        chosen = pick(found, 1.0 / (1.0 + np.exp(-logits)), self._second_share)
        return Choice(float(overall[0]), chosen, quotes(chosen, readings))

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


def quotes(chosen: Sequence[Candidate], readings: Sequence[Reading]) -> tuple[str, ...]:
    """Verbatim stretches: the best sentence's passage first, within a passage as it was written.

    A sentence that ends in a colon brings the list that it leads in; lines of code keep a fence around them.
    """
    said: list[str] = []
    covered: set[tuple[int, int]] = set()
    passages = list(dict.fromkeys(each.passage for each in chosen))
    for each in sorted(chosen, key=lambda each: (passages.index(each.passage), each.place)):
        if (each.passage, each.place) in covered:
            continue
        reading = readings[each.passage]
        last = _last_led_in(reading, each.place)
        covered |= {(each.passage, place) for place in range(each.place, last + 1)}
        start = reading.sentences[each.place].start
        stretch = reading.text[start : reading.sentences[last].end]
        opened = "```\n" if reading.text.count("```", 0, start) % 2 else ""
        closed = "\n```" if (opened + stretch).count("```") % 2 else ""
        said.append(opened + stretch + closed)
    return tuple(said)


def _last_led_in(reading: Reading, place: int) -> int:
    """The last of the list items, table rows or code lines that follow a leading sentence directly; else itself."""
    sentences = reading.sentences
    if not sentences[place].text.endswith((":", "\\")):
        return place
    last = min(place + MOST_LED_IN, len(sentences) - 1)
    for here in range(place + 1, last + 1):
        gap = reading.text[sentences[here - 1].end : sentences[here].start]
        item = "\n" not in gap or _ITEM.search(gap) or sentences[here].text.startswith("|")
        if not item or sentences[here].text.startswith("#"):
            return here - 1
    return last


def _joined(stretches: Sequence[str]) -> list[str]:
    """The stretches with what goes between them, so that splitting the joined text gives the same sentences back."""
    pieces: list[str] = []
    for stretch in stretches:
        between = ""
        if pieces:
            before = pieces[-1].strip()
            apart = _sentences(f"{before} {stretch}") == _sentences(before) + _sentences(stretch)
            between = " " if apart and "\n" not in before + stretch else "\n\n"
        pieces.append(between + stretch)
    return pieces


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]
