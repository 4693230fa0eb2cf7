import json
from pathlib import Path

import pytest

from app.services.gateway.extractive import WEIGHTS_FILE, ExtractiveAnswerer
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import UpstreamError
from graphs.refusal import REFUSAL
from graphs.sentences import split
from graphs.types import Completion, Delta, ModelRequest, Passage

APPROVALS = """# Approvals

An approval expires after 7 days. An expired approval counts as denied. Tickets wait for an approval."""
KEYS = """# Keys

A key carries one or more of three scopes:

- `chat` allows chat.
- `runs` allows reading runs.
- `owner` includes all others.

Keys are stored hashed. A revoked key stops at once."""
START = """# Start

Start the server with this command.

```sh
make run PORT=8000
```

The server listens on port 8000."""
TEXTS = (APPROVALS, KEYS, START)


def passages(texts: tuple[str, ...] = TEXTS) -> tuple[Passage, ...]:
    return tuple(Passage(f"c{n}", f"d{n}", "", text, 0, len(text), 1.0, "handbook") for n, text in enumerate(texts))


@pytest.fixture
def answerer(embedder: MiniLmEmbedder) -> ExtractiveAnswerer:
    return ExtractiveAnswerer(embedder)


async def answer(
    answerer: ExtractiveAnswerer, question: str, given: tuple[Passage, ...]
) -> tuple[list[str], Completion]:
    items = [item async for item in answerer.stream(ModelRequest((), question=question, grounding=given))]
    *deltas, completion = items
    assert isinstance(completion, Completion)
    return [item.text for item in deltas if isinstance(item, Delta)], completion


async def test_the_answer_quotes_the_sentence_that_answers(answerer: ExtractiveAnswerer) -> None:
    deltas, completion = await answer(answerer, "After how many days does an approval expire?", passages())
    assert deltas[0] == "An approval expires after 7 days."
    assert completion.text == "".join(deltas)
    assert completion.finish_reason == "stop"
    assert completion.usage.estimated
    assert completion.usage.input_tokens > completion.usage.output_tokens > 0


async def test_every_sentence_of_an_answer_stands_in_a_passage(answerer: ExtractiveAnswerer) -> None:
    for question in (
        "Which scopes can a key have?",
        "How do I start the server?",
        "What happens to an expired approval?",
    ):
        _, completion = await answer(answerer, question, passages())
        for start, end in split(completion.text):
            assert any(completion.text[start:end] in text for text in TEXTS)


async def test_a_lead_in_brings_its_list(answerer: ExtractiveAnswerer) -> None:
    _, completion = await answer(answerer, "Which scopes can a key carry?", passages())
    assert (
        "scopes:\n\n- `chat` allows chat.\n- `runs` allows reading runs.\n- `owner` includes all others."
        in completion.text
    )


@pytest.mark.parametrize(
    "question", ["What is the capital of France?", "Who founded the company?", "", "?!", "The of?"]
)
async def test_what_the_passages_do_not_answer_is_refused(answerer: ExtractiveAnswerer, question: str) -> None:
    deltas, completion = await answer(answerer, question, passages())
    assert deltas == [REFUSAL]
    assert completion.finish_reason == "no_answer"


async def test_without_passages_it_refuses(answerer: ExtractiveAnswerer) -> None:
    assert (await answer(answerer, "How do I start?", ()))[1].finish_reason == "no_answer"
    assert (await answer(answerer, "How do I start?", passages(("", "# Only a heading"))))[
        1
    ].finish_reason == "no_answer"


async def test_overlapping_chunks_are_quoted_once(answerer: ExtractiveAnswerer) -> None:
    _, completion = await answer(answerer, "After how many days does an approval expire?", passages() + passages())
    assert completion.text.count("An approval expires after 7 days.") == 1


async def test_after_closing_it_answers_no_more(answerer: ExtractiveAnswerer) -> None:
    await answerer.close()
    await answerer.close()
    with pytest.raises(UpstreamError):
        await answer(answerer, "How do I start?", passages())


def test_weights_for_other_features_are_refused(embedder: MiniLmEmbedder, tmp_path: Path) -> None:
    weights = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    weights["sentences"]["features"][0] = "another"
    path = tmp_path / "weights.json"
    path.write_text(json.dumps(weights), encoding="utf-8")
    with pytest.raises(ValueError, match="another"):
        ExtractiveAnswerer(embedder, path)
