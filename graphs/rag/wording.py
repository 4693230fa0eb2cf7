"""What is searched in the place of a question: a follow-up as a question of its own, and other wordings beside it.

A model that writes them sees the user's own questions alone, as data; answers, passages and tool results are not shown
to it. What it writes is searched and told, and never stands in the prompt of the answer. Where it fails, the question
is searched as it was asked, and that is told too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from graphs.context import Gateway
from graphs.errors import Forbidden, PromptTooLong, QuotaExhausted, UpstreamError
from graphs.fence import fence, fenced
from graphs.policy import RetrievalPolicy
from graphs.prompts import Authored, PromptBook, RunData
from graphs.rag.followup import asked_before, standalone
from graphs.types import Message, ModelRequest, Task

QUESTIONS_READ: Final = 4  # the newest: what a follow-up means is seldom further back, and each costs tokens
QUESTION_CHARS: Final = 1_000  # of each
LINE_CHARS: Final = 500  # a longer line is no question but an answer, and is not searched
LINE_TOKENS: Final = 128

_MARK: Final = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")
_QUOTES: Final = "\"'`“”„«»"


@dataclass(frozen=True, slots=True)
class Wording:
    """What is searched. `by` says who worded it; `failed` why it was not the model that was meant to."""

    query: str
    by: Literal["user", "words", "model"] = "user"
    failed: str = ""
    prompt_version: str = ""


@dataclass(frozen=True, slots=True)
class Variants:
    """Other wordings, each different from the query and from the others; `missing` is why there are none."""

    texts: tuple[str, ...] = ()
    missing: str = ""
    prompt_version: str = ""


@dataclass(frozen=True, slots=True)
class Writer:
    """The model that words questions anew, and its prompts."""

    gateway: Gateway
    prompts: PromptBook
    model: str | None = None

    async def lines(
        self, prompt: str, task: Task, user: str, most: int, **variables: Authored
    ) -> tuple[list[str], str]:
        """What it wrote, and the prompt's version. Raises UpstreamError, QuotaExhausted, Forbidden, PromptTooLong."""
        output_tokens = LINE_TOKENS * most
        rendered = self.prompts.get(prompt).render(
            RunData(user=user),
            variables=variables,
            budget_tokens=self.gateway.describe(self.model, task).context_tokens - output_tokens,
            count=lambda text: self.gateway.count_tokens(text, self.model, task),
        )
        request = ModelRequest(rendered.messages, model=self.model, task=task, max_tokens=output_tokens)
        completion = await self.gateway.complete(request)
        written = (_MARK.sub("", line).strip().strip(_QUOTES).strip() for line in completion.text.splitlines())
        return [line for line in written if line and len(line) <= LINE_CHARS], rendered.version


async def worded(question: str, history: Sequence[Message], policy: RetrievalPolicy, writer: Writer) -> Wording:
    """The question as it is to be searched after what the user asked before."""
    asked = asked_before(history)
    if policy.rewrite == "off" or not asked:
        return Wording(question)
    if policy.rewrite == "words":
        query = standalone(question, asked)
        return Wording(query, "user" if query == question else "words")
    try:
        lines, version = await writer.lines("rag.rewrite", "rewrite", _shown(question, asked), 1)
    except (UpstreamError, QuotaExhausted, Forbidden, PromptTooLong) as error:
        return Wording(question, failed=error.message)
    if len(lines) != 1:
        return Wording(question, failed="the model did not write one question", prompt_version=version)
    return Wording(lines[0], "user" if lines[0] == question else "model", prompt_version=version)


async def varied(query: str, policy: RetrievalPolicy, writer: Writer) -> Variants:
    """Up to `policy.variants` other wordings of the query."""
    if not policy.variants:
        return Variants(missing=policy.no_variants)
    try:
        lines, version = await writer.lines(
            "rag.variants", "multi_query", query, policy.variants, number=Authored(policy.variants)
        )
    except (UpstreamError, QuotaExhausted, Forbidden, PromptTooLong) as error:
        return Variants(missing=error.message)
    different = {_even(line): line for line in reversed(lines)}  # of equal ones the first
    different.pop(_even(query), None)
    texts = tuple(line for line in lines if different.get(_even(line)) is line)[: policy.variants]
    return Variants(texts, "" if texts else "the model wrote no other wording", version)


def _shown(question: str, asked: Sequence[str]) -> str:
    """The earlier questions as data in a fence that they cannot close, then the last one."""
    earlier = "\n".join(f"- {' '.join(fenced(turn).split())[:QUESTION_CHARS]}" for turn in asked[-QUESTIONS_READ:])
    return f"{fence('earlier_questions', earlier)}\n\nThe last question:\n{fenced(question)}"


def _even(text: str) -> str:
    """Wordings that differ in nothing a search would see are the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))
