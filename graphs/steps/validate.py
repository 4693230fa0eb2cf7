"""The last station: output guard, support for every sentence, citations from that support.

Citations never come from markers that a model wrote. A sentence is cited to the passages that measurably support it,
so that a citation which stands is one that holds.
"""

from collections.abc import Sequence
from typing import TypedDict

from langgraph.runtime import Runtime

from graphs.cite import attach
from graphs.context import RunContext
from graphs.events import Validated
from graphs.refusal import is_refusal
from graphs.sentences import split
from graphs.steps.outcome import Outcome, Validation
from graphs.types import Citation, Passage, SentenceSupport, Verdict


class ValidateUpdate(TypedDict, total=False):
    answer: str
    answered: bool
    output_verdicts: tuple[Verdict, ...]
    citations: tuple[Citation, ...]
    sentences: tuple[SentenceSupport, ...]
    validation: Validation


async def validate(state: Outcome, runtime: Runtime[RunContext]) -> ValidateUpdate:
    """Check the answer as it left, and measure it against the passages of the run, if there were any."""
    ctx = runtime.context
    answer, verdicts = await ctx.guard.check(state["answer"])
    passages = state.get("passages", ())
    sentences: tuple[SentenceSupport, ...] = ()
    citations: tuple[Citation, ...] = ()
    validation: Validation = "unchecked"
    answered = bool(answer.strip()) and not is_refusal(answer)
    if not answered:
        validation = "no_answer"
    elif passages:
        sentences, citations = await _support(ctx, answer, passages)
        validation = _overall(sentences)
    runtime.stream_writer(Validated(citations, sentences, validation))
    return {
        "answer": answer,
        "answered": answered,
        "output_verdicts": verdicts,
        "citations": citations,
        "sentences": sentences,
        "validation": validation,
    }


async def _support(
    ctx: RunContext, answer: str, passages: Sequence[Passage]
) -> tuple[tuple[SentenceSupport, ...], tuple[Citation, ...]]:
    spans = split(answer)
    scores = await ctx.guard.support([answer[start:end] for start, end in spans], passages)
    return attach(answer, spans, passages, scores, threshold=ctx.guard.support_threshold)


def _overall(sentences: Sequence[SentenceSupport]) -> Validation:
    supported = sum(sentence.supported for sentence in sentences)
    if supported == len(sentences):
        return "supported"
    return "partly_supported" if supported else "unsupported"
