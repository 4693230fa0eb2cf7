"""Answers that have to satisfy a JSON schema: one that does not is given back to the model once."""

import re
from typing import Final

from graphs.context import RunContext, Shape
from graphs.errors import AnswerNotValid
from graphs.prompts import RunData
from graphs.sentences import Span
from graphs.steps.complete import answer_tokens, prompt_budget
from graphs.types import ModelRequest

SHOWN_FAULTS: Final = 5

_FENCED: Final = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n\s*```\s*", re.DOTALL | re.IGNORECASE)
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"(\s*:)?')
_SEVERAL_WORDS: Final = re.compile(r"\w\s+\w+\s+\w")


async def conform(ctx: RunContext, shape: Shape, question: str, answer: str) -> tuple[str, int]:
    """The answer as JSON that fits, and how often the model had to mend it.

    Raises AnswerNotValid for one that does not fit even then.
    """
    answer = unfenced(answer)
    faults = shape.faults(answer)
    if not faults:
        return answer, 0
    mended = unfenced(await _mended(ctx, shape, question, answer, faults))
    if still := shape.faults(mended):
        raise AnswerNotValid(f"the answer does not fit the schema, mended once: {still[0]}", field="responseSchema")
    return mended, 1


def unfenced(answer: str) -> str:
    """JSON without the fence that models like to put round it."""
    found = _FENCED.fullmatch(answer)
    return found[1] if found else answer


def statements(answer: str) -> list[Span]:
    """The texts of a JSON answer that say something: string values of three words and more, without their quotes."""
    values = (found for found in _STRING.finditer(answer) if found[2] is None)
    return [found.span(1) for found in values if _SEVERAL_WORDS.search(found[1])]


async def _mended(ctx: RunContext, shape: Shape, question: str, answer: str, faults: tuple[str, ...]) -> str:
    rendered = ctx.prompts.get("answer.repair").render(
        RunData(user=_shown(question, answer, faults)),
        budget_tokens=prompt_budget(ctx, ctx.model, "arguments"),
        count=lambda text: ctx.gateway.count_tokens(text, ctx.model, "arguments"),
    )
    completion = await ctx.gateway.complete(
        ModelRequest(
            messages=rendered.messages,
            model=ctx.model,
            task="arguments",
            response_schema=shape.schema,
            max_tokens=answer_tokens(ctx, ctx.model, "arguments"),
            temperature=0.0,
            question=question,
        )
    )
    text, _ = await ctx.guard.check(completion.text)
    return text


def _shown(question: str, answer: str, faults: tuple[str, ...]) -> str:
    listed = "\n".join(f"- {fault}" for fault in faults[:SHOWN_FAULTS])
    return f"The question:\n{question}\n\nThe answer:\n{answer}\n\nWhat is wrong with it:\n{listed}"
