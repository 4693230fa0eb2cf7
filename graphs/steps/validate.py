"""The last station: output guard, schema, support for every sentence, citations from that support, the tenant's rules.

Citations never come from markers that a model wrote. A sentence is cited to the passages that measurably support it,
so that a citation which stands is one that holds. An answer that was held leaves here, as its checks have left it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from langgraph.runtime import Runtime

from graphs.cite import attach, without
from graphs.context import RunContext
from graphs.events import Said, Validated
from graphs.refusal import REFUSAL, is_refusal
from graphs.rules import Answered
from graphs.sentences import Span, split
from graphs.steps.conform import conform, statements
from graphs.steps.outcome import Outcome, Validation
from graphs.types import Citation, Passage, SentenceSupport, Verdict


class ValidateUpdate(TypedDict, total=False):
    answer: str
    answered: bool
    blocked: bool
    repairs: int
    output_verdicts: tuple[Verdict, ...]
    citations: tuple[Citation, ...]
    sentences: tuple[SentenceSupport, ...]
    validation: Validation


@dataclass(frozen=True, slots=True)
class _Checked:
    """An answer on its way through the checks; each gives a new one."""

    answer: str
    verdicts: tuple[Verdict, ...]
    answered: bool = True
    blocked: bool = False
    repairs: int = 0
    sentences: tuple[SentenceSupport, ...] = ()
    citations: tuple[Citation, ...] = ()
    validation: Validation = "unchecked"

    def noted(self, guard: str, action: str, *reasons: str) -> "tuple[Verdict, ...]":
        return (*self.verdicts, Verdict(guard, "output", action, reasons))  # type: ignore[arg-type]


async def validate(state: Outcome, runtime: Runtime[RunContext]) -> ValidateUpdate:
    """Check the answer as it left, or before it leaves, against its schema, the passages of the run and the rules.

    Raises AnswerNotValid.
    """
    ctx = runtime.context
    answer, verdicts = await ctx.guard.check(state["answer"], state.get("redacted", ()))
    checked = _Checked(answer, verdicts)
    if not answer.strip() or is_refusal(answer):
        checked = replace(checked, answered=False, validation="no_answer")
    else:
        checked = await _shaped(ctx, state["question"], checked)
        checked = await _grounded(ctx, checked, state.get("passages", ()))
        checked = await _ruled(ctx, checked, state)
    if state.get("held") and checked.answer:
        runtime.stream_writer(Said(checked.answer))
    runtime.stream_writer(Validated(checked.citations, checked.sentences, checked.validation))
    return {
        "answer": checked.answer,
        "answered": checked.answered,
        "blocked": checked.blocked,
        "repairs": checked.repairs,
        "output_verdicts": checked.verdicts,
        "citations": checked.citations,
        "sentences": checked.sentences,
        "validation": checked.validation,
    }


async def _shaped(ctx: RunContext, question: str, checked: _Checked) -> _Checked:
    if ctx.shape is None:
        return checked
    answer, repairs = await conform(ctx, ctx.shape, question, checked.answer)
    verdicts = checked.noted("schema", "redact" if repairs else "allow", *["mended"] * repairs)
    return replace(checked, answer=answer, repairs=repairs, verdicts=verdicts)


async def _grounded(ctx: RunContext, checked: _Checked, passages: Sequence[Passage]) -> _Checked:
    """The answer with its support, and without what policy does not let stand unsupported."""
    if not passages:
        return checked
    checked = await _measured(ctx, checked, passages)
    policy = ctx.answers.unsupported
    if policy == "flag" or all(sentence.supported for sentence in checked.sentences):
        return checked
    if policy == "remove" and ctx.shape is None and any(sentence.supported for sentence in checked.sentences):
        unsupported = [(each.start, each.end) for each in checked.sentences if not each.supported]
        verdicts = checked.noted("support", "redact", "unsupported")
        kept = replace(checked, answer=without(checked.answer, unsupported), verdicts=verdicts)
        kept = await _measured(ctx, kept, passages)
        if all(sentence.supported for sentence in kept.sentences):
            return kept
    return _Checked(
        REFUSAL,
        checked.noted("support", "block", "unsupported"),
        answered=False,
        repairs=checked.repairs,
        validation="no_answer",
    )


async def _measured(ctx: RunContext, checked: _Checked, passages: Sequence[Passage]) -> _Checked:
    spans = split(checked.answer) if ctx.shape is None else statements(checked.answer)
    sentences, citations = await _support(ctx, checked.answer, spans, passages)
    return replace(checked, sentences=sentences, citations=citations, validation=_overall(sentences))


async def _support(
    ctx: RunContext, answer: str, spans: Sequence[Span], passages: Sequence[Passage]
) -> tuple[tuple[SentenceSupport, ...], tuple[Citation, ...]]:
    scores = await ctx.guard.support([answer[start:end] for start, end in spans], passages)
    return attach(answer, spans, passages, scores, threshold=ctx.guard.support_threshold)


def _overall(sentences: Sequence[SentenceSupport]) -> Validation:
    supported = sum(sentence.supported for sentence in sentences)
    if supported == len(sentences):
        return "supported"
    return "partly_supported" if supported else "unsupported"


async def _ruled(ctx: RunContext, checked: _Checked, state: Outcome) -> _Checked:
    """An answer that a rule refuses ends the run as blocked, with a fixed sentence in its place."""
    if not checked.answered:
        return checked
    answered = Answered(checked.answer, state["question"], tuple(state.get("passages", ())))
    judged = await ctx.guard.judge(answered)
    verdicts = (*checked.verdicts, *judged)
    if all(verdict.action != "block" for verdict in judged):
        return replace(checked, verdicts=verdicts)
    return _Checked(
        ctx.answers.refused,
        verdicts,
        answered=False,
        blocked=True,
        repairs=checked.repairs,
        validation="blocked",
    )
